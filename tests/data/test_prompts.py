"""Class names and what images of a class are prompted with."""

import json

import pytest
import torch
from sources import configured, expansion

from distdiff.data.datasets import prompts, sentences
from distdiff.errors import UserError
from distdiff.expansion.plan import ExpansionPlan

WORD_FILES = {
    "words.json": '{"n01": "tench", "n02": "dog"}',
    "list.json": '["tench", "dog"]',
    "words.csv": "n01,tench\nn02,dog\nn99,more",
    "ids.txt": "n01 tench\nn02 dog\n",
    "order.txt": "tench\ndog\n",
}


@pytest.mark.parametrize("name", WORD_FILES)
def test_class_ids_are_mapped_by_a_file(name: str, tmp_path) -> None:
    (tmp_path / name).write_text(WORD_FILES[name])
    config = configured("imagefolder", tmp_path, class_names=str(tmp_path / name))
    assert prompts(config, ("n01", "n02")) == ["a photo of a tench.", "a photo of a dog."]


def test_a_template_gets_the_words_of_a_class_wherever_it_asks_for_them(tmp_path) -> None:
    config = configured(
        "imagefolder", tmp_path, prompt_template="{}: a {} outdoors", class_names={"sea_cow": "manatee"}
    )
    assert prompts(config, ("sea_horse", "sea_cow")) == [
        "sea horse: a sea horse outdoors",
        "manatee: a manatee outdoors",
    ]
    assert sentences(config, ("sea_cow",)) == [["manatee: a manatee outdoors"]]


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("airplane", "a photo of an airplane."),
        ("Apple_tree", "a photo of an Apple tree."),
        ("orange", "a photo of an orange."),
        ("cat", "a photo of a cat."),
        ("7", "a photo of a 7."),
        ("one", "a photo of a one."),
        ("unicorn", "a photo of a unicorn."),
        ("uninhabited_island", "a photo of an uninhabited island."),
        ("umbrella", "a photo of an umbrella."),
        ("European_robin", "a photo of a European robin."),
        ("utensil", "a photo of a utensil."),
        ("hourglass", "a photo of an hourglass."),
        ("horse", "a photo of a horse."),
        ("onion", "a photo of an onion."),
    ],
)
def test_the_default_prompt_has_the_right_article(name: str, prompt: str, tmp_path) -> None:
    assert prompts(configured("imagefolder", tmp_path), (name,)) == [prompt]


def test_the_article_is_that_of_the_words_for_a_class(tmp_path) -> None:
    config = configured("imagefolder", tmp_path, class_names={"n01": "owl", "ape": "monkey"})
    assert prompts(config, ("n01", "ape")) == ["a photo of an owl.", "a photo of a monkey."]


def test_a_template_or_sentence_of_the_users_own_stays_as_it_is(tmp_path) -> None:
    template = configured("imagefolder", tmp_path, prompt_template="a drawing of a {}.")
    assert prompts(template, ("owl",)) == ["a drawing of a owl."]
    (tmp_path / "p.json").write_text('{"owl": "a photo of a {}."}')
    sentence = configured("imagefolder", tmp_path, prompts_file=str(tmp_path / "p.json"))
    assert sentences(sentence, ("owl",)) == [["a photo of a owl."]]


def test_class_names_may_be_numbers(tmp_path) -> None:
    assert (
        prompts(configured("digits", tmp_path, class_names={0: "zero"}), ("0", "1"))[0] == "a photo of the digit zero."
    )


def test_class_names_that_fit_no_class_are_refused(tmp_path) -> None:
    (tmp_path / "w.txt").write_text("a b\n")
    with pytest.raises(UserError, match="it names none of the 2 classes, such as 'n01'"):
        prompts(configured("imagefolder", tmp_path, class_names=str(tmp_path / "w.txt")), ("n01", "n02"))
    with pytest.raises(UserError, match="there is no class 'n03'; the classes are n01, n02"):
        prompts(configured("imagefolder", tmp_path, class_names={"n03": "x"}), ("n01", "n02"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.json", '{"sea_horse": ["a {} in the sea", "a small {}"], "cat": "one cat"}'),
        ("p.csv", "sea_horse,a {} in the sea\ncat,one cat\nsea_horse,a small {}\n"),
    ],
)
def test_a_prompts_file_has_several_sentences_a_class(name: str, text: str, tmp_path) -> None:
    (tmp_path / name).write_text(text)
    config = configured("imagefolder", tmp_path, prompts_file=str(tmp_path / name))
    assert sentences(config, ("cat", "sea_horse")) == [["one cat"], ["a sea horse in the sea", "a small sea horse"]]
    with pytest.raises(UserError, match="no sentence for 1 class, such as 'dog'"):
        sentences(config, ("cat", "dog"))


def test_each_image_draws_its_sentence_by_its_own_seed(small_run, image_folder, tmp_path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"cat": ["a cat", "the {}", "shared"], "train": ["shared"]}))
    plain, several = (expansion(small_run, image_folder, *more) for more in ([], [f"dataset.prompts_file={file}"]))
    assert plain.ingredients["prompts"] == ["a photo of a cat.", "a photo of a train."]
    assert several.ingredients["prompts"] == [["a cat", "the cat", "shared"], ["shared"]]
    assert plain.fingerprint != several.fingerprint
    synthesizer = several.synthesizer("test: expand")
    assert len(synthesizer.prompts.positive) == 3  # each distinct sentence once
    items = list(ExpansionPlan(several.sources, 8, 0.5, several.seed))
    drawn = synthesizer.prompt_numbers(items).tolist()
    for item, number in zip(items, drawn, strict=True):
        assert synthesizer.prompt_numbers([item]).tolist() == [number]
        assert number == 2 or item.class_name == "cat"
    assert {number for item, number in zip(items, drawn, strict=True) if item.class_name == "cat"} == {0, 1, 2}


def test_a_prompts_file_with_the_templates_sentence_changes_no_image(small_run, image_folder, tmp_path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({name: "a photo of a {}." for name in ("cat", "train")}))
    made = []
    for more in ([], [f"dataset.prompts_file={file}"]):
        job = expansion(small_run, image_folder, *more)
        items = [ExpansionPlan(job.sources, 1, 0.5, job.seed)[index] for index in range(3)]
        made.append(job.synthesizer("test: expand")(items).images)
    assert torch.equal(*made)
