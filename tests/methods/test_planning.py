"""What methods plan: partners by the item's own seed, labels of other classes, names that no two images share."""

from itertools import pairwise

import numpy as np
import pytest

from distdiff.data.images import LabelledImages
from distdiff.data.soft_labels import SoftLabel, soft_label
from distdiff.errors import UserError
from distdiff.expansion.hard import hardest
from distdiff.expansion.plan import ExpansionPlan
from distdiff.methods.base import Method
from distdiff.methods.config import MATERIALS, needs_of
from distdiff.methods.item import WorkItem
from distdiff.methods.sources import Sources
from distdiff.store.encoding import extension_of


def images(*sizes: int, key: str = "{}.png") -> LabelledImages:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    of_class = [key.format(i) for size in sizes for i in range(size)]  # the same keys in every class
    names = tuple(f"class {i}" for i in range(len(sizes)))
    return LabelledImages("any", names, labels, tuple(of_class), read=None, indices=np.arange(len(labels)))


class Triple(Method):
    num_sources = 3

    def synthesizer(self):
        raise NotImplementedError


class Translated(Method):
    """Takes a source of one class for an image that is mostly of another."""

    num_sources, keeps_class = 2, False

    def partners(self, item: WorkItem, sources: Sources, seed: int) -> tuple[int, ...]:
        label = sources.labels[item.position]
        return (sources.outside(label, item.seed_for(seed, "partner") % sources.num_outside(label)),)

    def label(self, item: WorkItem, sources: Sources, seed: int) -> SoftLabel:
        own, other = (sources.labels[position] for position in (item.position, *item.partners))
        return soft_label({own: 0.3, other: 0.7})

    def synthesizer(self):
        raise NotImplementedError


def test_partners_are_other_images_of_the_class_none_twice_where_there_are_enough() -> None:
    plan = ExpansionPlan(images(5, 2, 1), 30, 0.5, 0, method=Triple())
    for item in plan:
        assert {plan.images.labels[partner] for partner in item.partners} == {item.label}
        assert len(item.sources) == 3
        if item.label == 0:
            assert len({item.position, *item.partners}) == 3
    assert list(ExpansionPlan(images(5, 2, 1), 2, 0.5, 0, method=Triple())) == list(plan)[:16]


def test_an_image_of_another_class_than_its_source_lies_in_its_own_class_under_a_name_of_its_own() -> None:
    """Keys are the same in all classes, and one of a class's own images is called as another's source would be."""
    for key in ("{}.png", "class 1~~{}.png", "class 0/{}.png"):
        plan = ExpansionPlan(images(3, 3, 3, key=key), 20, 0.5, 0, method=Translated())
        items = list(plan)
        assert list(plan.file_names()) == [item.file_name for item in items]
        assert len({item.file_name for item in items}) == len(items)
        for item in items:
            assert item.file_name.startswith(f"{item.class_name}/{item.source_class}~~")
            assert item.soft_label[0] == (item.label, 0.7)
            assert item.class_name != item.source_class == item.sources[0].partition("/")[0]
            assert extension_of(item.file_name) == "png"
    rows = [{"class_name": item.class_name, "sources": list(item.sources), "copy": item.copy} for item in items]
    assert ExpansionPlan(images(3, 3, 3, key=key), 1, 0.5, 0, method=Translated()).factor_with(rows) == 20


@pytest.mark.parametrize("balance", [False, True])
def test_chosen_sources_get_all_copies_of_their_class(balance: bool) -> None:
    given, chosen = images(6, 2, 3), np.array([1, 4, 5, 6, 9])
    plans = [ExpansionPlan(given, factor, 0.5, 0, balance=balance, chosen=chosen) for factor in (1, 2, 3)]
    every = ExpansionPlan(given, 3, 0.5, 0, balance=balance)
    assert plans[2].counts.tolist() == every.counts.tolist()
    items = list(plans[2])
    assert {item.position for item in items} == set(chosen.tolist())
    assert len({item.file_name for item in items}) == len(items)
    for smaller, larger in pairwise(plans):
        assert list(larger.file_names())[: len(smaller)] == list(smaller.file_names())
    for position in chosen:
        copies = sorted(item.copy for item in items if item.position == position)
        assert copies == list(range(len(copies)))
    rows = [{"class_name": i.class_name, "sources": list(i.sources), "copy": i.copy} for i in items]
    assert plans[0].factor_with(rows) == 3
    assert plans[0].factor_with(rows[: len(plans[1])]) == 2


def test_the_hardest_are_a_share_of_each_class() -> None:
    order, labels = np.array([5.0, 1, 3, 2, 9, 8]), np.array([0, 0, 0, 0, 1, 1])
    assert hardest(order, labels, 0.5).tolist() == [0, 2, 4]
    assert hardest(order, labels, 0.01).tolist() == [0, 4]
    assert hardest(order, labels, 1.0).tolist() == list(range(6))


class NeedsTheMoon(Method):
    def synthesizer(self, moon):
        raise NotImplementedError


def test_a_method_that_needs_what_cannot_be_had_is_one_line() -> None:
    with pytest.raises(
        UserError, match=r"^method=mine needs 'moon', which cannot be had: one of seed, squares, generator"
    ):
        needs_of({"_target_": f"{__name__}.NeedsTheMoon", "name": "mine"})
    assert set(needs_of({"_target_": "distdiff.methods.img2img.Img2Img"})) < set(MATERIALS)
