"""Reads an option's keys from the signature of the option's `_target_`, without importing the target's module.

The modules of targets import torch, diffusers or kornia, which takes seconds, but a typing mistake must be reported
within one second. So the signature is read from the source. A target that cannot be read that way (because of a
decorator or a compiled module) is imported and inspected.
"""

import ast
import builtins
import inspect
import types
import typing
from dataclasses import dataclass, field, is_dataclass
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from hydra._internal.utils import _locate as _locate_object  # works like get_object, but logs nothing
from omegaconf import MISSING

from distdiff import keys
from distdiff.errors import UserError, first_line
from distdiff.keys import Limits

PLAIN = (int, float, str, bool)
WITHOUT_KEYS = {"ABC", "object"}  # base classes whose constructor takes no arguments
COMPUTED = "…"  # stands for a default that is an expression, which Python evaluates if the key has no value


@dataclass(frozen=True)
class Parameter:
    """A key's type, limits and default.

    The type is `Any` if a configuration cannot hold the one in the signature. The default is MISSING if the
    argument has none, and COMPUTED if it is an expression that only Python can evaluate.
    """

    type: Any = Any
    limits: Limits = Limits()
    default: Any = MISSING

    @property
    def takes_list(self) -> bool:
        return self.type is Any or "list" in str(self.type)


@dataclass(frozen=True)
class Signature:
    """An option's keys by name (`keys`), and the names of the arguments that the program gives (`context`).

    If `takes_any` is set, the option takes keys of any name (`**keys`).
    """

    keys: dict[str, Parameter] = field(default_factory=dict)
    context: tuple[str, ...] = ()
    takes_any: bool = False


@cache
def signature_of(target: str) -> Signature:
    """The signature of the function, class or method that `target` names.

    Raises `UserError` if the signature cannot be read.
    """
    try:
        file, names = _locate(target)
        found = None if file is None else _Module.of(file).find(names)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"_target_={target} cannot be used: {first_line(error)}") from None
    return _imported(target) if found is None else found


def _imported(target: str) -> Signature:
    """The signature of `target`, found by importing `target` and inspecting it."""
    try:
        found = _locate_object(target)
        parameters, takes_any = keys.keyword_only(found)
        before = tuple(
            item.name
            for item in inspect.signature(found).parameters.values()
            if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD)
        )
    except Exception as error:  # the module is the user's own, and may raise anything
        raise UserError(f"_target_={target} cannot be used: {first_line(error.__cause__ or error)}") from error
    own = {
        name: _parameter(item.annotation, MISSING if item.default is item.empty else item.default)
        for name, item in parameters.items()
    }
    return Signature(own, before, takes_any)


def _locate(target: str) -> tuple[Path | None, list[str]]:
    """The source file of the module with which `target` begins, and the names after the module's name.

    The file is None if the module has no Python source. The target itself is not imported.
    """
    parts, where, file = target.split("."), None, None
    for number in range(len(parts)):
        name = ".".join(parts[: number + 1])
        # Only the first name goes through all finders, because an editable installation adds its own finder.
        spec = find_spec(name) if number == 0 else PathFinder.find_spec(name, where)
        if spec is None:
            return file, parts[number:]
        file = Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
        where = spec.submodule_search_locations
        if where is None:
            return file, parts[number + 1 :]
    return file, []


class _Module:
    """The source of one module."""

    def __init__(self, file: Path) -> None:
        body = ast.parse(file.read_text(encoding="utf-8")).body
        self.definitions = {
            node.name: node for node in body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        }
        self.aliases = {
            target.id: node.value
            for node in body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        self.imports = {
            alias.asname or alias.name: (node.module, alias.name)
            for node in body
            if isinstance(node, ast.ImportFrom) and node.module and not node.level
            for alias in node.names
        }

    @staticmethod
    @cache
    def of(file: Path) -> "_Module":
        return _Module(file)

    def find(self, names: list[str]) -> Signature | None:
        """The signature of the function, class or method with these `names`; None if the source does not show it."""
        if not names or len(names) > 2:
            return None
        node = self.definitions.get(names[0])
        if node is None:
            return self._elsewhere(names[0], names[1:])
        if isinstance(node, ast.ClassDef):
            return self._method(node, names[1] if names[1:] else "__init__")
        return None if node.decorator_list or names[1:] else self._signature(node, bound=False)

    def _elsewhere(self, name: str, rest: list[str]) -> Signature | None:
        if name not in self.imports:
            return None
        module, original = self.imports[name]
        file, before = _locate(module)
        return None if file is None or before else _Module.of(file).find([original, *rest])

    def _method(self, owner: ast.ClassDef, name: str) -> Signature | None:
        for node in owner.body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                known = {"classmethod"}
                names = {item.id if isinstance(item, ast.Name) else "" for item in node.decorator_list}
                own = self._signature(node, bound=True) if names <= known else None
                forwards = own is not None and own.takes_any and name == "__init__"
                return self._with_keys_of_base(own, owner) if forwards else own
        bases = [base.id if isinstance(base, ast.Name) else "" for base in owner.bases]
        for base in filter(None, bases):
            found = self.find([base, *([name] if name != "__init__" else [])])
            if found is not None:
                return found
        return Signature() if name == "__init__" and set(bases) <= WITHOUT_KEYS else None

    def _with_keys_of_base(self, own: Signature, owner: ast.ClassDef) -> Signature | None:
        """The signature of a constructor with `**keys`, which is assumed to pass `**keys` to its base class.

        The keys of the base class are included.
        """
        for base in owner.bases:
            found = self.find([base.id]) if isinstance(base, ast.Name) else None
            if found is not None:
                return Signature(found.keys | own.keys, own.context, found.takes_any)
        return None

    def _signature(self, node: ast.FunctionDef | ast.AsyncFunctionDef, bound: bool) -> Signature:
        given = node.args
        own = {}
        for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
            value = MISSING if default is None else _literal(default)
            own[argument.arg] = _parameter(self._type(argument.annotation), value)
        before = [argument.arg for argument in (*given.posonlyargs, *given.args)]
        return Signature(own, tuple(before[1:] if bound else before), given.kwarg is not None)

    def _type(self, node: ast.expr | None) -> Any:
        """The type in an annotation; `Any` if a configuration cannot hold values of this type."""
        match node:
            case ast.Constant(value=None):
                return type(None)
            case ast.Constant(value=str(text)):
                return self._type(ast.parse(text, mode="eval").body)
            case ast.Name(id=name):
                return self._named(name)
            case ast.BinOp(op=ast.BitOr(), left=left, right=right):
                return Union[self._type(left), self._type(right)]  # noqa: UP007 (the types are known only at run time)
            case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
                return Literal[tuple(_literal(item) for item in _elements(inner))]
            case ast.Subscript(value=ast.Name(id="list"), slice=inner):
                return list[self._type(inner)]
            case ast.Subscript(value=ast.Name(id="Annotated"), slice=inner):
                base, *rest = _elements(inner)
                limits = [self._limits(item) for item in rest]
                return Annotated[(self._type(base), *filter(None, limits))] if any(limits) else self._type(base)
        return Any

    def _named(self, name: str) -> Any:
        if name in self.aliases:
            return self._type(self.aliases[name])
        if name in self.imports:
            module, original = self.imports[name]
            if module == keys.__name__:
                return getattr(keys, original, Any)
            file, before = _locate(module)
            if file is None or before:
                return Any
            if (
                original in _Module.of(file).definitions
            ):  # a dataclass of nested keys, in a module without heavy imports
                return getattr(import_module(module), original)
            return _Module.of(file)._named(original)
        found = getattr(builtins, name, Any)
        return found if found in (*PLAIN, list, dict) else Any

    def _limits(self, node: ast.expr) -> Limits | None:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == Limits.__name__:
            return Limits(**{item.arg: _literal(item.value) for item in node.keywords})
        return None


def _elements(node: ast.expr) -> list[ast.expr]:
    return list(node.elts) if isinstance(node, ast.Tuple) else [node]


def _literal(node: ast.expr) -> Any:
    """The value of a literal; COMPUTED for any other expression."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return COMPUTED


def _parameter(annotation: Any, default: Any) -> Parameter:
    """The key for an argument with this annotation (`Annotated[float, Limits(…)] | None`, …) and default."""
    type_, limits, optional = _unwrapped(annotation)
    if not (type_ in PLAIN or type_ in (list, dict) or typing.get_origin(type_) is list or is_dataclass(type_)):
        type_ = Any
    if isinstance(default, tuple):
        default = list(default)
    return Parameter(type_ | None if optional and type_ is not Any else type_, limits, default)


def _unwrapped(annotation: Any) -> tuple[Any, Limits, bool]:
    """The type and the limits in an annotation, and whether the annotation allows null."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        type_, limits, optional = _unwrapped(parts[0])
        return type_, next((item for item in parts[1:] if isinstance(item, Limits)), limits), optional
    if origin is Literal:
        kinds = {type(value) for value in parts}
        return kinds.pop() if len(kinds) == 1 else Any, Limits(choices=parts), False
    if origin in (Union, types.UnionType):
        inner = [part for part in parts if part is not type(None)]
        if len(inner) == 1:
            type_, limits, _ = _unwrapped(inner[0])
            return type_, limits, type(None) in parts
        return Any, Limits(), type(None) in parts
    if origin is list:
        type_, limits, _ = _unwrapped(parts[0])
        return list[type_] if type_ in PLAIN else list[Any], limits, False
    return annotation, Limits(), annotation is Any
