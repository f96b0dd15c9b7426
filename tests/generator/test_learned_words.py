"""Textual inversions in the formats that people have, and what is said of files that are none."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import compose
from hub_server import Hub, forget, send_downloads_to, served
from pipelines import small_xl_pipeline
from safetensors.torch import save_file

from distdiff.errors import UserError
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.pipelines import fetch_generator, fingerprint, load_generator
from distdiff.generator.tokens import read


def config(model: Path, *words: str):
    overrides = ["generator=local", f"generator.model={model}", "generator.resolution=32"]
    return compose("expand", [*overrides, f"generator.textual_inversion={[str(word) for word in words]}"]).generator


def load(model: Path, *words: str) -> LatentDiffusion:
    return load_generator(config(model, *words))


def vector_of(generator: LatentDiffusion, word: str) -> torch.Tensor:
    pipeline = generator.family.pipeline
    number = pipeline.tokenizer.convert_tokens_to_ids(word)
    return pipeline.text_encoder.get_input_embeddings().weight[number]


def a1111(vectors: torch.Tensor, name: str | None = "zorp", **more: Any) -> dict[str, Any]:
    named = {} if name is None else {"name": name}
    return {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "step": 500, **named, **more}


def old_a1111(vectors: torch.Tensor) -> dict[str, Any]:
    """As the textual inversion repository of 2022 saved it, under the file's name."""
    held = torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors)})
    return {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": held}


@pytest.mark.parametrize(
    ("file", "make", "words"),
    [
        ("learned_embeds.bin", lambda vectors: {"<blob>": vectors}, ["<blob>"]),
        ("learned_embeds.bin", lambda vectors: {"<blob>": vectors[0]}, ["<blob>"]),
        ("x.pt", a1111, ["zorp"]),
        ("frob.pt", lambda vectors: a1111(vectors, None), ["frob"]),
        ("grumble.pt", old_a1111, ["grumble"]),
        ("x.bin", lambda vectors: {"<a>": vectors, "<b>": 2 * vectors}, ["<a>", "<b>"]),
        ("x.safetensors", lambda vectors: {"<blob>": vectors}, ["<blob>"]),
        ("zorp.safetensors", lambda vectors: {"emb_params": vectors}, ["zorp"]),
    ],
)
def test_files_of_all_usual_formats_add_their_words(
    file: str, make: Any, words: list[str], pipeline_folder: Path, tmp_path: Path
) -> None:
    vectors = torch.randn(1, 16)
    content = make(vectors)
    save_file(content, tmp_path / file) if file.endswith(".safetensors") else torch.save(content, tmp_path / file)
    generator = load(pipeline_folder, f"{tmp_path}/{file}")
    for number, word in enumerate(words):
        torch.testing.assert_close(vector_of(generator, word), (number + 1) * vectors[0])
    assert generator.learned_words == {f"{tmp_path}/{file}": words}
    assert generator.check_prompts([[f"a photo of a {' '.join(words)}."]], ("cat",)) == []
    by_folder = load(pipeline_folder, str(tmp_path))  # the folder's only file
    torch.testing.assert_close(vector_of(by_folder, words[0]), vectors[0])


@pytest.mark.parametrize("file", ["x.pt", "x.bin", "x.safetensors"])
def test_a_word_of_several_vectors_becomes_several_tokens(file: str, pipeline_folder: Path, tmp_path: Path) -> None:
    vectors = torch.randn(3, 16)
    if file == "x.safetensors":
        save_file({"<blob>": vectors}, tmp_path / file)
    else:
        torch.save(a1111(vectors, "<blob>") if file == "x.pt" else {"<blob>": vectors}, tmp_path / file)
    generator = load(pipeline_folder, f"{tmp_path}/{file}")
    for word, vector in zip(("<blob>", "<blob>_1", "<blob>_2"), vectors, strict=True):
        torch.testing.assert_close(vector_of(generator, word), vector)
    tokenizer = generator.family.pipeline.tokenizer
    numbers = tokenizer.convert_tokens_to_ids(["<blob>", "<blob>_1", "<blob>_2"])
    assert read(generator.family, "<blob>").kept[0][1:-1] == tuple(numbers)


class Harmful:
    """Runs code if it is unpickled without care."""

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return Path.touch, (Path("/tmp/distdiff-harmed"),)


CASES = {
    "harmful.bin": lambda path: path.write_bytes(pickle.dumps({"<blob>": Harmful()})),
    "harmful.pt": lambda path: torch.save({"<blob>": Harmful()}, path),
    "checkpoint.pt": lambda path: torch.save({"state_dict": {"a": torch.zeros(2, 2)}, "epoch": 3}, path),
    "list.bin": lambda path: torch.save([torch.zeros(16)], path),
    "picture.bin": lambda path: torch.save({"x": torch.zeros(3, 8, 8)}, path),
    "nothing.bin": lambda path: torch.save({}, path),
    "text.pt": lambda path: path.write_text("hello"),
    "page.pt": lambda path: path.write_text("\n<!DOCTYPE html><html>"),
    "page.safetensors": lambda path: path.write_text("<html lang='en'>"),
    "none.pt": lambda path: torch.save({"<blob>": torch.zeros(0, 16)}, path),
    "nan.pt": lambda path: torch.save({"<blob>": torch.full((1, 16), torch.nan)}, path),
    "infinite.safetensors": lambda path: save_file({"<blob>": torch.full((1, 16), torch.inf)}, path),
    "unnamed.pt": lambda path: torch.save({"": torch.ones(1, 16)}, path),
    "blank.safetensors": lambda path: save_file({" ": torch.ones(1, 16)}, path),
    "empty.pt": lambda path: path.write_bytes(b""),
    "pointer.bin": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "half.pt": lambda path: (
        torch.save({"<blob>": torch.zeros(1, 16)}, path),
        path.write_bytes(path.read_bytes()[:300]),
    ),
    "wide.bin": lambda path: torch.save({"<blob>": torch.zeros(1, 768)}, path),
    "no_vectors.pt": lambda path: torch.save(a1111(torch.zeros(1, 16)) | {"string_to_param": 3}, path),
    "both.safetensors": lambda path: save_file({"clip_l": torch.ones(1, 16), "clip_g": torch.ones(1, 16)}, path),
    "both.pt": lambda path: torch.save({"clip_l": torch.ones(1, 16), "clip_g": torch.ones(1, 16)}, path),
    "known.pt": lambda path: torch.save(a1111(torch.zeros(1, 16), "photo</w>"), path),
}
WORDS = {
    "harmful.bin": "other Python objects than tensors",
    "harmful.pt": "other Python objects than tensors",
    "checkpoint.pt": "it is no textual inversion: it holds 'state_dict', 'epoch', and a textual inversion is {word: vectors}",
    "list.bin": "it holds a list; a textual inversion is {word: vectors}",
    "picture.bin": "it is no textual inversion: it holds 'x'",
    "nothing.bin": "it holds nothing",
    "text.pt": "it is a text, not weights",
    "page.pt": "it is a web page, not the file itself",
    "page.safetensors": "it is a web page, not the file itself",
    "none.pt": "it has no vectors for '<blob>'",
    "nan.pt": "the vectors of <blob> hold values that are not finite",
    "infinite.safetensors": "the vectors of <blob> hold values that are not finite",
    "unnamed.pt": "it gives an empty word to its vectors",
    "blank.safetensors": "it gives an empty word to its vectors",
    "empty.pt": "it is empty",
    "pointer.bin": "it is a git-lfs pointer",
    "half.pt": "it is cut short or damaged (",
    "wide.bin": "the vectors of <blob> have 768 numbers, and this model's text encoder takes 16",
    "no_vectors.pt": "its string_to_param does not hold the vectors of one word",
    "both.safetensors": "it has vectors for two text encoders (clip_g, clip_l), and this model has one",
    "both.pt": "it has vectors for two text encoders (clip_l, clip_g), and this model has one",
    "known.pt": "the model knows the word photo</w> already",
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_that_is_no_learned_word_is_one_line_with_its_name_and_the_cause(
    name: str, pipeline_folder: Path, tmp_path: Path
) -> None:
    CASES[name](tmp_path / name)
    with pytest.raises(UserError) as caught:
        load(pipeline_folder, f"{tmp_path}/{name}")
    message = str(caught.value)
    assert message.startswith(f"generator.textual_inversion={tmp_path}/{name} cannot be loaded: {name}: ")
    assert WORDS[name] in message
    assert "\n" not in message
    assert "tensor(" not in message
    assert not Path("/tmp/distdiff-harmed").exists()


def test_a_model_with_two_encoders_takes_two_vectors_from_a_pickle_too(tmp_path: Path) -> None:
    small_xl_pipeline().save_pretrained(tmp_path / "xl")
    torch.save({"clip_l": torch.ones(2, 16), "clip_g": torch.zeros(2, 16)}, tmp_path / "blob.pt")
    generator = load(tmp_path / "xl", f"{tmp_path}/blob.pt")
    torch.testing.assert_close(vector_of(generator, "<blob>_1"), torch.ones(16))
    torch.save({"clip_l": torch.ones(2, 16), "clip_g": torch.ones(1, 16)}, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=r"odd.pt: its numbers of vectors differ \(2 for clip_l and 1 for clip_g\)"):
        load(tmp_path / "xl", f"{tmp_path}/odd.pt")
    torch.save({"<blob>": torch.ones(1, 16)}, tmp_path / "one.pt")
    with pytest.raises(UserError, match="it has no clip_l, only <blob>; this model takes vectors for both"):
        load(tmp_path / "xl", f"{tmp_path}/one.pt")


def test_a_word_on_the_hub_is_a_pickle_or_one_file_of_several(
    pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("concept", "several/sub"):
        (tmp_path / folder).mkdir(parents=True)
    torch.save({"<cat-toy>": torch.ones(1, 16)}, tmp_path / "concept" / "learned_embeds.bin")
    (tmp_path / "concept" / "token_identifier.txt").write_text("<cat-toy>")
    for place in ("several/a", "several/b", "several/sub/c"):
        torch.save({f"<{place[-1]}>": torch.full((1, 16), 2.0)}, tmp_path / f"{place}.pt")
    hub = Hub({f"tests/{name}": {"main": tmp_path / name} for name in ("concept", "several")})
    wanted = config(pipeline_folder, "tests/concept", "tests/several/sub/c.pt")
    with served(hub):
        send_downloads_to(hub.url, monkeypatch)
        fetch_generator(wanted)
        assert sorted(hub.sent()) == ["tests/concept@main/learned_embeds.bin", "tests/several@main/sub/c.pt"]
        with pytest.raises(UserError, match=r"it has 2 weight files \(a.pt, b.pt\); name one, such as"):
            load(pipeline_folder, "tests/several")
    forget()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    generator = load_generator(wanted)
    torch.testing.assert_close(vector_of(generator, "<c>"), torch.full((16,), 2.0))


def test_a_changed_pickle_is_another_fingerprint(pipeline_folder: Path, tmp_path: Path) -> None:
    seen = set()
    for value in (1.0, 2.0):
        torch.save({"<blob>": torch.full((1, 16), value)}, tmp_path / "x.pt")
        for name in (f"{tmp_path}/x.pt", f"{tmp_path}"):
            seen.add((name, fingerprint(config(pipeline_folder, name))["textual_inversion"][0]))
    assert len(seen) == 4
