"""The rows of a study: names that mean one thing each, selections behind a plus, and rows by overrides."""

import pytest
from conftest import compose
from omegaconf import OmegaConf

from distdiff.commands.configuration import configure_jobs
from distdiff.config.arguments import readable
from distdiff.errors import UserError
from distdiff.expansion.naming import row_name
from distdiff.option_files.search_path import OURS
from distdiff.study.methods import CHOSEN, ORIGINAL
from distdiff.study.rows import chosen_row, known_rows, rows_of

CONTROL = "study.rows={control: [guidance=transform, guidance.init=random, guidance.rho=0]}"


def rows(*overrides: str) -> dict:
    return {row.name: row for row in rows_of(compose("run", readable(["logger=none", *overrides])))}


def test_no_name_means_two_rows() -> None:
    """A row is `original`, or an option of exactly one of three groups; `none` is guidance's."""
    groups = ("method", "guidance", "augmentation")
    known = known_rows(OURS.options)
    for name, group in known.items():
        others = [other for other in groups if other != group and name in OURS.options(other)]
        assert not others or (name, group, others) == ("none", "guidance", ["augmentation"])
    assert known["none"] == "guidance"
    assert not {ORIGINAL, CHOSEN} & known.keys()
    assert not any("+" in name for group in (*groups, "selection") for name in OURS.options(group))


def test_each_kind_of_row_has_its_own_configuration() -> None:
    found = rows("study.methods=[original,randaugment,none,transform,mix,none+energy,chosen]", "guidance.rho=7")
    assert list(found) == ["original", "randaugment", "none", "transform", "mix", "none+energy", "direct"]
    assert not found["original"].expands
    chosen = {
        name: (row.config.method.name, row.config.guidance.name, row.config.selection.name)
        for name, row in found.items()
    }
    assert chosen["randaugment"] == ("augmentation", "direct", "all")
    assert found["randaugment"].config.method.policy == "randaugment"
    assert found["randaugment"].config.augmentation.name == "default"  # what is trained with is another matter
    assert chosen["none"] == ("img2img", "none", "all")
    assert chosen["transform"] == ("img2img", "transform", "all")
    assert chosen["mix"] == ("mix", "direct", "all")
    assert chosen["none+energy"] == ("img2img", "none", "energy")
    assert chosen["direct"] == ("img2img", "direct", "all")
    assert found["direct"].config.guidance.rho == 7
    assert found["transform"].config.guidance.rho == 10  # its own default: the key was given to direct
    for name, row in found.items():
        assert name == ORIGINAL or row_name(row.config) == name


def test_rows_can_be_added_by_overrides() -> None:
    found = rows("study.methods=[original]", CONTROL, "guidance.gradient_norm=unit", "expansion.factor=3")
    assert list(found) == ["original", "control"]
    guidance = OmegaConf.to_container(found["control"].config.guidance)
    assert (guidance["name"], guidance["init"], guidance["rho"]) == ("transform", "random", 0)
    assert guidance["gradient_norm"] == "none"  # which was given to another method
    assert found["control"].config.expansion.factor == 3
    assert found["original"].config.guidance.name == "direct"


def test_typed_keys_hold_for_rows_by_overrides_unless_these_choose_another_option() -> None:
    given = ["guidance=transform", "guidance.rho=7", "guidance.epsilon=0.3"]
    same = rows(*given, "study.rows={t: [guidance=transform, generator.num_steps=20]}")["t"].config
    assert (same.guidance.rho, same.guidance.epsilon, same.generator.num_steps) == (7, 0.3, 20)
    other = rows(*given, "study.rows={t: [guidance=direct]}")["t"].config
    assert other.guidance.rho == 7  # which every guidance takes, so that a sweep over it reaches all rows
    assert "epsilon" not in other.guidance


def test_a_row_may_change_how_it_is_trained() -> None:
    found = rows(
        "study.rows={smooth: [train.label_smoothing=0.1, augmentation=mixup], strong: ['expansion.strength=[0.5,0.9]']}"
    )
    assert found["smooth"].config.train.label_smoothing == 0.1
    assert found["smooth"].config.augmentation.name == "mixup"
    assert found["strong"].config.expansion.strength == [0.5, 0.9]
    assert found["strong"].config.augmentation.name == "default"


def test_what_the_keys_choose_is_the_chosen_row() -> None:
    assert list(rows("study.methods=[none,chosen]", "selection=energy"))[-1] == "direct+energy"
    found = rows("study.methods=[none,chosen]", "method=mix", "method.alpha=3")
    assert list(found) == ["none", "mix"]
    assert found["mix"].config.method.alpha == 3
    best = rows("study.methods=[original_best,chosen_best]", "selection=energy")["direct+energy_best"]
    assert best.best
    assert best.images == "direct+energy"
    config = compose("run", ["study.methods=[none,chosen_best]", "study.factors=[1,5]"])
    assert chosen_row(config, {"none@5", "direct_best@5"}) == "direct_best@5"
    assert chosen_row(config, {"direct@5", "direct_best@5"}) == chosen_row(config, {"none@5"}) == "direct@5"
    ratio = rows("study.methods=[none+energy]", "options.selection.energy.ratio=5")["none+energy"]
    assert ratio.config.selection.ratio == 5


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("study.methods=[direkt]", "study.methods=direkt is not allowed: one of original,"),
        ("study.methods=[none+energi]", "study.methods=none+energi is not allowed: behind the plus one of all, "),
        ("study.methods=[none+energi]", "; did you mean energy?"),
        ("study.methods=[original+energy]", "there is nothing to select from the original images"),
        ("study.methods=[mixup]", "study.methods=mixup is not allowed"),
        ("study.methods=[]", "study.methods=[] is not allowed: one or more rows"),
        ("study.rows={a: [guidance=transfrm]}", "study.rows.a: guidance=transfrm is not allowed: one of chamfer,"),
        (
            "study.rows={a: [guidance.roh=1]}",
            "study.rows.a: guidance.roh=1 is not allowed: there is no such key; did you",
        ),
        ("study.rows={a: [guidance.rho=-1]}", "study.rows.a: guidance.rho=-1.0 is not allowed: a number at least 0"),
        (
            "study.rows={a: [guidance=none, guidance.period=2]}",
            "study.rows.a: guidance.period=2 is not allowed: guidance=none",
        ),
        (
            "study.rows={a: [dataset.per_class=2]}",
            "study.rows.a: dataset.per_class=2 is not allowed: rows share dataset",
        ),
        ("study.rows={a: []}", "study.rows.a=[] is not allowed: a list of overrides"),
        ("study.rows={none: [guidance.rho=1]}", "study.rows.none is not allowed: another row has this name"),
        ("study.rows={a: [guidance=none, +guidance.foo=1]}", "study.rows.a: guidance.foo=1 is not allowed"),
        ("study.rows={a: [method=mix, expansion.strength=0.3]}", "method=mix does not read expansion.strength"),
        ("study.rows={a: [method=text2img, guidance=direct]}", "method=text2img does not read the guidance keys"),
        ("study.rows={1: [guidance=none]}", "study.rows.1 is not allowed: a row's name is text that is no number"),
        ("train.expanded=somewhere", "train.expanded=somewhere is not allowed here: a study expands the data itself"),
        ("study.rows=[a]", "study.rows=['a'] is not allowed: 'study.rows={<name>: [<override>, ...]}'"),
    ],
)
def test_a_row_that_cannot_be_is_one_line(override: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        rows(override)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_method_that_no_row_is_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"method=mix selection=all is not read: no row of study.methods is mix; add it"
    ):
        rows("study.methods=[original,none]", "method=mix")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["method=mix", "guidance.period=3"],
            "guidance.period=3 is not allowed: method=mix does not read the guidance keys",
        ),
        (["method=mix", "guidance=none"], "guidance=none is not allowed: method=mix does not read the guidance keys"),
        (["method=mix", "energy.class_weight=2"], "method=mix without a selection does not read the energy keys"),
        (["method=text2img", "expansion.strength=0.4"], "method=text2img does not read expansion.strength"),
        (["method=img2img", "method.alpha=1"], "method=img2img does not read method.alpha; it is for method=mix"),
        (
            ["method=augmentation", "method.policy=none"],
            "method.policy=none is not allowed: it makes no copy of an image",
        ),
        (["selection=energy", "selection.ratio=0.5"], "selection.ratio=0.5 is not allowed: a number at least 1"),
        (
            ["encoder=clip", "expansion.sources=hard"],
            "expansion.sources=hard is not allowed: it asks which images the guide",
        ),
    ],
)
def test_keys_that_a_method_does_not_read_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        compose("expand", overrides)
    assert words in str(caught.value)


def test_a_sweep_over_methods_takes_the_keys_of_each() -> None:
    jobs = configure_jobs(
        "expand",
        ["method=img2img,mix", "guidance=direct", "guidance.period=3", "expansion.strength=0.7", "guidance.rho=1"],
    )
    assert [job.method.name for job in jobs] == ["img2img", "mix"]
    assert compose("expand", ["method=mix", "guidance.rho=3"]).method.name == "mix"
    assert compose("expand", ["method=mix", "selection=energy", "energy.class_weight=2"]).energy.class_weight == 2
