"""`selection=clip`: images that show, for CLIP, what the prompt of their class says."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose
from encoder_models import EYE, PROCESSOR, SIZE, normalised
from PIL import Image
from shown import shown
from small_expansion import small_jobs
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from distdiff.data.pixels import to_tensor
from distdiff.encoders import zero_shot
from distdiff.errors import UserError
from distdiff.pretraining.tokenizer import build_tokenizer
from distdiff.selection.base import Candidates
from distdiff.selection.clip import ClipConfidence

PROMPTS = [["a photo of a cat.", "a cat on a mat."], ["a photo of a dog."], ["a photo of a bird."]]
IMAGES = torch.rand(7, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with random weights, its tokenizer and its processor file."""
    tokenizer = build_tokenizer([prompt for own in PROMPTS for prompt in own], num_merges=20)
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    body = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    text = CLIPTextConfig(**body, **ends, vocab_size=len(tokenizer), max_position_embeddings=48, projection_dim=16)
    vision = CLIPVisionConfig(**EYE, projection_dim=16)
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16))
    place = tmp_path_factory.mktemp("clip")
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    (place / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return place


def selection(folder: Path | str, **keys) -> ClipConfidence:
    given = {"ratio": 2, "model": str(folder), "revision": None, "rule": "threshold", "threshold": None}
    return ClipConfidence(**(given | keys))


def candidates(prompts=PROMPTS) -> Candidates:
    return replace(shown(np.eye(7), np.eye(7)), prompts=prompts, look=lambda places: IMAGES[list(places)])


def test_confidence_is_that_of_clip_itself(folder: Path) -> None:
    """Oracle: the forward pass of transformers' CLIPModel; prompts of one class are averaged as in CLIP's notebook."""
    model, tokenizer = (
        CLIPModel.from_pretrained(folder).eval(),
        build_tokenizer([p for own in PROMPTS for p in own], 20),
    )
    with torch.no_grad():

        def embeds(texts: list[str]):
            tokens = tokenizer(texts, padding=True, return_tensors="pt")
            return model(**tokens, pixel_values=normalised(IMAGES))

        one_each = [own[:1] for own in PROMPTS]
        expected = embeds([text for (text,) in one_each]).logits_per_image.softmax(-1)[:, 0]
        found = selection(folder).confidence(candidates(one_each))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        means = torch.stack([embeds(own).text_embeds.mean(0) for own in PROMPTS])
        means = means / means.norm(dim=-1, keepdim=True)
        logits = model.logit_scale.exp() * embeds(["a"]).image_embeds @ means.T
        np.testing.assert_allclose(selection(folder).confidence(candidates()), logits.softmax(-1)[:, 0], atol=1e-5)


def test_images_above_the_threshold_are_kept_and_the_most_certain_fill_up_only_at_last(folder, monkeypatch) -> None:
    certain = np.array([0.9, 0.2, 0.6, 0.34, 0.3, 0.33, 0.0])
    monkeypatch.setattr(ClipConfidence, "confidence", lambda self, candidates: certain)
    by_default = selection(folder)  # one of three classes: a third
    assert by_default.choose(candidates(), 2, last=False).tolist() == [0, 2]
    assert by_default.choose(candidates(), 5, last=False).tolist() == [0, 2, 3]
    assert by_default.choose(candidates(), 5, last=True).tolist() == [0, 2, 3, 5, 4]
    assert selection(folder, threshold=0.5).choose(candidates(), 5, last=False).tolist() == [0, 2]
    assert selection(folder, rule="top").choose(candidates(), 3, last=False).tolist() == [0, 2, 3]


def test_an_expansion_keeps_the_most_certain_candidates(folder, small_run, image_folder, tmp_path) -> None:
    given = ["selection=clip", "selection.rule=top", "selection.max_ratio=null", f"selection.model='{folder}'"]
    job = small_jobs(small_run, image_folder, tmp_path)(*given, "guidance=none", "expansion.factor=1")
    job.run("test")
    classes = job.sources.class_names
    for label, (name, count) in enumerate(zip(classes, job.plan.counts.tolist(), strict=True)):
        files = sorted(job.path.glob(f"{name}*/*.png")) + sorted(job.path.glob(f".candidates/{name}*/*.png"))
        assert len(files) == 2 * count
        images = torch.stack([to_tensor(Image.open(file).convert("RGB")) for file in files])
        shown_files = replace(
            shown(np.eye(len(files)), np.eye(2)),
            label=label,
            prompts=[[f"a photo of a {each}."] for each in classes],
            look=lambda places, images=images: images[list(places)],
        )
        certain = selection(folder).confidence(shown_files)
        assert certain[:count].min() >= certain[count:].max()  # the first files are those that were kept


def test_the_weights_of_the_model_and_the_prompts_identify_what_is_kept(folder, tmp_path) -> None:
    copied = tmp_path / "clip"
    shutil.copytree(folder, copied)
    same = selection(folder).identity(PROMPTS)
    assert selection(copied).identity(PROMPTS) == same
    assert selection(folder).identity(PROMPTS[:2]) != same
    model = CLIPModel.from_pretrained(folder)
    model.logit_scale.data += 1
    model.save_pretrained(copied)
    assert selection(copied).identity(PROMPTS) != same


def test_a_model_that_cannot_be_used_is_one_line_before_any_image_is_made(
    folder, small_run, image_folder, tmp_path
) -> None:
    with pytest.raises(UserError, match=r"^selection.model=.*/nowhere: .*"):
        compose("expand", [*small_run, "selection=clip", f"selection.model={tmp_path}/nowhere"])
    jobs = small_jobs(small_run, image_folder, tmp_path)
    with pytest.raises(
        UserError, match=r"^selection.model=openai/clip-vit-base-patch32: .*; a folder with a CLIP model works"
    ):
        jobs("selection=clip")
    vision = tmp_path / "vision"
    model = CLIPModel.from_pretrained(folder)
    model.vision_model.save_pretrained(vision)
    with pytest.raises(UserError, match=r"^selection.model=.*vision is no (CLIP|vision) model") as caught:
        jobs("selection=clip", f"selection.model='{vision}'")
    assert "\n" not in str(caught.value)


def test_a_process_loads_the_model_once_for_all_rows_and_seeds_and_again_if_its_files_change(
    folder, tmp_path, monkeypatch
) -> None:
    place = tmp_path / "clip"
    shutil.copytree(folder, place)
    loaded = []
    load = zero_shot.load_pretrained
    monkeypatch.setattr(zero_shot, "load_pretrained", lambda *given: loaded.append(given) or load(*given))
    for _ in range(3):  # as the rows and data seeds of a study
        chooser = selection(place)
        chooser.check(np.zeros(2, np.int64))
        before = chooser.confidence(candidates())
    assert len(loaded) == 1
    model = CLIPModel.from_pretrained(folder)
    model.logit_scale.data += 1
    model.save_pretrained(place)
    assert np.abs(selection(place).confidence(candidates()) - before).max() > 1e-6
    assert len(loaded) == 2
