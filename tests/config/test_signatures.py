"""An option's keys are read from its source as Python would see them, and without importing it."""

import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import MISSING

from distdiff.errors import UserError
from distdiff.keys import Limits, keys_taken_by
from distdiff.keys.signatures import COMPUTED, Parameter, signature_of

MODULE = """
from abc import ABC
from typing import Annotated, Any, Literal

from distdiff.keys import Limits, NonNegative, PositiveInt

Mode = Literal["a", "b"]
SIZE = 3
raise_if_imported = 1 / 0 if __name__ != "seen" else 0


class Base(ABC):
    def __init__(self, given: int, *, start: PositiveInt | None = None) -> None: ...

    @classmethod
    def load(cls, *, root: str | None, names: list[str]) -> None: ...


class Own(Base):
    def __init__(self, *, rho: NonNegative, mode: Mode = "a", share: Annotated[float, Limits(above=0, at_most=1)] = 0.5,
                 many: str | list[str] = "x", size: int = SIZE + 1, thing: "Base | None" = None, **keys: Any) -> None:
        super().__init__(**keys)


class Inherits(Own): ...


class Empty(ABC): ...


def function(given: int, other: str, *, flag: bool, count: PositiveInt = 2) -> None: ...


def anything(*, flag: bool, **more: object) -> None: ...
"""
DECORATED = """
def decorate(function):
    def wrapped(*, seen: int = 4): ...
    return wrapped


@decorate
def hidden(*, unseen: int): ...
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch):
    name = f"options_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / f"{name}_decorated.py").write_text(DECORATED)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    assert name not in sys.modules


def test_a_class_has_its_own_keys_and_those_of_the_base_that_it_hands_them_to(modules: str) -> None:
    own = signature_of(f"{modules}.Own")
    assert own.keys == {
        "start": Parameter(int | None, Limits(at_least=1), None),
        "rho": Parameter(float, Limits(at_least=0), MISSING),
        "mode": Parameter(str, Limits(choices=("a", "b")), "a"),
        "share": Parameter(float, Limits(above=0, at_most=1), 0.5),
        "many": Parameter(Any, Limits(), "x"),
        "size": Parameter(int, Limits(), COMPUTED),
        "thing": Parameter(Any, Limits(), None),
    }
    assert not own.takes_any
    assert signature_of(f"{modules}.Inherits") == own
    assert signature_of(f"{modules}.Base").context == ("given",)
    assert signature_of(f"{modules}.Empty").keys == {}


def test_functions_and_methods(modules: str) -> None:
    assert signature_of(f"{modules}.function").context == ("given", "other")
    assert signature_of(f"{modules}.function").keys == {
        "flag": Parameter(bool, Limits(), MISSING),
        "count": Parameter(int, Limits(at_least=1), 2),
    }
    assert signature_of(f"{modules}.Inherits.load").keys == {
        "root": Parameter(str | None, Limits(), MISSING),
        "names": Parameter(list[str], Limits(), MISSING),
    }
    assert signature_of(f"{modules}.anything").takes_any


def test_what_a_decorator_hides_is_asked_of_python(modules: str) -> None:
    assert signature_of(f"{modules}_decorated.hidden").keys == {"seen": Parameter(int, Limits(), 4)}


@pytest.mark.parametrize("target", ["nowhere.Thing", "json.nothing", "{modules}.Missing"])
def test_a_target_that_there_is_not_is_one_line(target: str, modules: str) -> None:
    with pytest.raises(UserError) as caught:
        signature_of(target.format(modules=modules))
    assert str(caught.value).startswith(f"_target_={target.format(modules=modules)} cannot be used: ")
    assert "\n" not in str(caught.value)


def test_python_sees_the_same_keys_where_a_constructor_forwards() -> None:
    class Base:
        def __init__(self, given: int, *, start: int = 0) -> None: ...

    class Own(Base):
        def __init__(self, *, rho: float, **keys: object) -> None: ...

    class Open(Own):
        def __init__(self, **keys: object) -> None: ...

    assert keys_taken_by(Open) == keys_taken_by(Own) == {"rho", "start"}
    assert keys_taken_by(lambda **keys: None) is None
    assert keys_taken_by(object) == set()
