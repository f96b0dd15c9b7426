"""Prompts that a generator's tokenizers do not read as they are written."""

from pathlib import Path

import pytest
import torch
from conftest import compose
from pipelines import WORDS, small_pipeline, small_sd3_pipeline, small_xl_pipeline

from distdiff.errors import UserError
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.tokens import read
from distdiff.pretraining.tokenizer import build_tokenizer

LONG = "word " * 60
CLASSES = ("cat", "dog")


def generator(pipeline, negative: str = "", learned: dict[str, list[str]] | None = None) -> LatentDiffusion:
    return LatentDiffusion(pipeline, 4, 2.0, 32, negative_prompt=negative, learned_words=learned)


def long_t5_tokenizer(pipeline):
    """The small T5 tokenizer knows no letters; a CLIP one stands in for it, and takes as many tokens as T5's."""
    pipeline.tokenizer_3 = build_tokenizer(WORDS, num_merges=10)
    pipeline.text_encoder_3.resize_token_embeddings(len(pipeline.tokenizer_3))
    return pipeline


@pytest.mark.parametrize("build", [small_pipeline, small_xl_pipeline, lambda: small_sd3_pipeline(with_t5=False)])
def test_classes_that_are_cut_off_are_refused_and_have_the_same_conditioning(build) -> None:
    prompts = [[f"{LONG}{name}"] for name in CLASSES]
    ours = generator(build())
    with pytest.raises(UserError) as caught:
        ours.check_prompts(prompts, CLASSES)
    words = "dataset.prompt_template is not allowed: the classes 'cat' and 'dog' get the same prompt, because this generator"
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)
    embedded = ours.embed([one for own in prompts for one in own]).positive.tokens
    assert torch.equal(embedded[0], embedded[1])


def test_a_class_that_one_tokenizer_of_several_reads_is_allowed() -> None:
    """Stable Diffusion 3 gives 256 tokens to T5; an XL pipeline's second tokenizer may need fewer tokens for a text."""
    xl = small_xl_pipeline()
    xl.tokenizer_2 = build_tokenizer(["word word cat dog"], num_merges=60)
    xl.text_encoder_2.resize_token_embeddings(len(xl.tokenizer_2))
    prompts = [[f"{'word ' * 20}{name}"] for name in CLASSES]
    for pipeline, words in (
        (xl, "for 1 of the 2 text encoders"),
        (long_t5_tokenizer(small_sd3_pipeline()), "2 of the 3"),
    ):
        ours = generator(pipeline)
        (line,) = ours.check_prompts(prompts, CLASSES)
        assert words in line
        assert "is cut off" in line
        embedded = ours.embed([one for own in prompts for one in own]).positive.tokens
        assert not torch.equal(embedded[0], embedded[1])


def test_an_end_that_is_cut_off_is_said_with_its_words() -> None:
    (line,) = generator(small_pipeline()).check_prompts([[f"{name} {LONG}the end"] for name in CLASSES], CLASSES)
    assert line.startswith("dataset.prompt_template: 'cat word ")
    assert "is longer than 48 tokens: 'ord word " in line
    assert line.endswith("is cut off (2 prompts are cut)")
    (line,) = generator(small_pipeline(), f"{LONG}the end").check_prompts([["a cat"]], ("cat",))
    assert line.startswith("generator.negative_prompt: 'word ")


def test_prompts_that_fit_are_not_mentioned() -> None:
    ours = generator(small_pipeline(), "a dog")
    assert ours.check_prompts([["a cat"], ["a photo of a cat"]], CLASSES) == []
    kept = read(ours.family, "a cat").kept[0]
    assert list(kept) == ours.family.pipeline.tokenizer("a cat").input_ids


def test_a_prompt_at_the_limit_is_whole_and_one_token_more_is_cut() -> None:
    ours = generator(small_pipeline())
    assert ours.check_prompts([["x " * 46], ["y " * 46]], CLASSES) == []
    (line,) = ours.check_prompts([["x " * 46 + "z"], ["y " * 46]], CLASSES)
    assert ": 'z' is cut off" in line


def test_words_that_differ_only_for_people_are_said() -> None:
    (line,) = generator(small_pipeline()).check_prompts(
        [["the letter A"], ["the letter a"]], ("A", "a"), "prompt_template"
    )
    assert line == (
        "prompt_template: this generator reads 'the letter A' and 'the letter a' as the same prompt, so the classes 'A' and "
        "'a' share it"
    )


def test_two_classes_with_one_prompt_are_said_and_refused_if_it_is_cut() -> None:
    ours = generator(small_pipeline())
    (line,) = ours.check_prompts([["a cell"], ["a cell"]], CLASSES)
    assert line == "dataset.prompt_template: the classes 'cat' and 'dog' have the same prompt, 'a cell'"
    with pytest.raises(UserError, match="the classes 'cat' and 'dog' get the same prompt, because this generator"):
        ours.check_prompts([[f"{LONG}x"], [f"{LONG}x"]], CLASSES)
    assert ours.check_prompts([["a cell", "a cell"], ["a dog"]], CLASSES) == []


def test_a_word_that_was_never_learned_is_said_once_and_a_learned_one_is_not() -> None:
    pipeline = small_pipeline()
    pipeline.load_textual_inversion({"<blob>": torch.randn(3, 16)})
    ours = generator(pipeline, "<ugly>", {"blob.bin": ["<blob>", "<blob>_1", "<blob>_2"]})
    (line,) = ours.check_prompts([["a <blob> of a <toy>"], ["a <toy>"]], CLASSES)
    assert line.startswith(
        "<toy>, <ugly> are no learned words of this generator, so the letters are read as ordinary text"
    )
    *_, line = ours.check_prompts([["a cat"], ["a dog"]], CLASSES)
    assert line.startswith("generator.textual_inversion=blob.bin changes no image: its word <blob> is in no prompt")
    (line,) = generator(pipeline, "<blob>", {"blob.bin": ["<blob>"]}).check_prompts([["a <toy>"]], ("cat",))
    assert line.startswith("<toy> is no learned word")


def test_a_learned_word_that_is_read_inside_of_another_word_is_said() -> None:
    pipeline = small_pipeline()
    for word in ("emb", "<blob>"):
        pipeline.load_textual_inversion({word: torch.randn(2, 16)})
    ours = generator(pipeline, "", {"e.pt": ["emb", "emb_1"], "b.pt": ["<blob>"]})
    (line,) = ours.check_prompts([["an emb <blob> of a member"], ["emb emb_1 <blob>s"]], CLASSES)
    assert line.startswith("generator.textual_inversion=e.pt: its word emb is also read inside of member; write other")
    assert ours.check_prompts([["emb of a <blob>"], ["an emb <blob>"]], CLASSES) == []


def test_a_learned_word_of_several_vectors_is_counted_with_all_of_them() -> None:
    pipeline = small_pipeline()
    pipeline.load_textual_inversion({"<blob>": torch.randn(60, 16)})
    with pytest.raises(UserError, match="the classes 'cat' and 'dog' get the same prompt"):
        generator(pipeline, "", {"blob": ["<blob>"]}).check_prompts([["<blob> cat"], ["<blob> dog"]], CLASSES)


def test_an_expansion_is_refused_before_it_makes_anything(tmp_path: Path) -> None:
    from distdiff.commands.expand import expand

    template = "a grey scanned low resolution picture taken in an office, high quality, very detailed, of the digit {}."
    overrides = [f"dataset.prompt_template='{template}'", "dataset.per_class=1", "expansion.factor=1", "guidance=none"]
    config = compose("expand", [*overrides, "logger=none", f"paths.output_dir={tmp_path}"])
    with pytest.raises(UserError, match=r"the classes '\d' and '\d' get the same prompt, because .* reads 48 tokens"):
        expand(config, tmp_path)
    assert not list(tmp_path.rglob("*.png"))
