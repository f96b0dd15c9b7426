"""Conditions on an expanded dataset's metadata, such as `energy_after < 1.1 and strength >= 0.5`. No code is evaluated.

Python's parser reads a condition, only whitelisted nodes of its syntax tree are accepted, and pyarrow computes the
result. Conditions are checked before anything heavy is imported, so pyarrow is imported only for the result.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distdiff.errors import UserError

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.compute

ALLOWED = (
    "a condition on columns of metadata.parquet, made of < <= > >= == !=, in [...], and, or, not, numbers and 'texts'"
)
COMPARISONS = {
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
}
NUMBER, TEXT, TRUTH = "a number", "a text", "true or false"
MAX_LENGTH = 2_000  # characters


@dataclass(frozen=True)
class RowFilter:
    """The condition `text`, and `key`, the configuration key that gave this condition.

    Raises `UserError` if `text` is not a condition. Whether the condition's columns exist is checked later, by `apply`.
    """

    key: str
    text: str

    def __post_init__(self) -> None:
        try:
            self._check(self._tree)
            ast.unparse(self._tree)
        except RecursionError:
            raise self.wrong(ALLOWED) from None

    @classmethod
    def of(cls, key: str, text: str | None) -> "RowFilter | None":
        return None if text is None else cls(key, text)

    @property
    def words(self) -> str:
        """The condition in one standard spelling: conditions that differ only in spaces or quotes give the same text."""
        return ast.unparse(self._tree)

    def apply(self, table: "pyarrow.Table") -> "pyarrow.Table":
        """The rows for which the condition is true. A row without a value that the condition needs is left out.

        Raises `UserError` if the table lacks a column, or if a column is compared with a value of another kind.
        """
        return table.filter(_Columns(self, table.schema).condition(self._tree))

    def wrong(self, reason: str) -> UserError:
        return UserError(f"{self.key}={self.text!r} is not allowed: {reason}")

    @property
    def _tree(self) -> ast.expr:
        try:
            if len(self.text) > MAX_LENGTH:
                raise ValueError
            return ast.parse(self.text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise self.wrong(ALLOWED) from None

    def _check(self, node: ast.expr) -> None:
        """Raises `UserError` unless `node` is a condition.

        A condition is a column of truth values, a comparison, or is formed from conditions by `and`, `or` or `not`.
        """
        if isinstance(node, ast.BoolOp):
            for part in node.values:
                self._check(part)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self._check(node.operand)
        elif isinstance(node, ast.Compare):
            self._check_value(node.left)
            for operator, right in zip(node.ops, node.comparators, strict=True):
                if isinstance(operator, (ast.In, ast.NotIn)):
                    self._check_list(right)
                elif type(operator) in COMPARISONS:
                    self._check_value(right)
                else:
                    raise self.wrong(f"{ast.unparse(node)} is not an allowed comparison; {ALLOWED}")
        elif not isinstance(node, ast.Name):
            raise self.wrong(f"{ast.unparse(node)} is no condition; {ALLOWED}")

    def _check_value(self, node: ast.expr) -> None:
        if not isinstance(node, ast.Name) and _constant(node) is None:
            raise self.wrong(f"{ast.unparse(node)} is no column, number or 'text'; {ALLOWED}")

    def _check_list(self, node: ast.expr) -> None:
        if not isinstance(node, (ast.List, ast.Tuple)) or not node.elts:
            raise self.wrong(f"'in' needs a list, such as [0, 1], not {ast.unparse(node)}")
        kinds = {_kind(_constant(part)) for part in node.elts}
        if len(kinds) > 1 or None in kinds:
            raise self.wrong(f"{ast.unparse(node)} is no list of numbers or of 'texts'")


class _Columns:
    """Turns checked conditions into pyarrow expressions on the columns of a schema."""

    def __init__(self, owner: RowFilter, schema: "pyarrow.Schema") -> None:
        self.owner, self.schema = owner, schema

    def condition(self, node: ast.expr) -> "pyarrow.compute.Expression":
        if isinstance(node, ast.BoolOp):
            parts = [self.condition(part) for part in node.values]
            combined = parts[0]
            for part in parts[1:]:
                combined = combined & part if isinstance(node.op, ast.And) else combined | part
            return combined
        if isinstance(node, ast.UnaryOp):
            return ~self.condition(node.operand)
        if isinstance(node, ast.Name):
            expression, kind = self.value(node)
            if kind != TRUTH:
                raise self.owner.wrong(f"the column {node.id} holds {kind}: compare it with a value")
            return expression
        compared, left = None, node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            step = self._comparison(left, operator, right)
            compared = step if compared is None else compared & step
            left = right
        return compared

    def _comparison(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> "pyarrow.compute.Expression":
        import pyarrow.compute

        value, kind = self.value(left)
        if isinstance(operator, (ast.In, ast.NotIn)):
            options = [_constant(part) for part in right.elts]
            self._agree(left, kind, right, _kind(options[0]))
            # `isin` is not used: `isin` casts the options to the column's type, and fails for 0.5 and an integer column.
            among = value == options[0]
            for option in options[1:]:
                among = among | (value == option)
            return ~among if isinstance(operator, ast.NotIn) else among
        other, other_kind = self.value(right)
        self._agree(left, kind, right, other_kind)
        if kind == TRUTH and not isinstance(operator, (ast.Eq, ast.NotEq)):
            raise self.owner.wrong(f"{ast.unparse(left)} is {TRUTH}: only == and != can compare it")
        return getattr(pyarrow.compute, COMPARISONS[type(operator)])(value, other)

    def _agree(self, left: ast.expr, kind: str, right: ast.expr, other: str) -> None:
        if kind != other:
            raise self.owner.wrong(f"{ast.unparse(left)} is {kind}, but {ast.unparse(right)} is {other}")

    def value(self, node: ast.expr) -> tuple["pyarrow.compute.Expression", str]:
        """One side of a comparison as an expression, and the kind of its values."""
        import pyarrow.compute
        import pyarrow.types as types

        if not isinstance(node, ast.Name):
            constant = _constant(node)
            return pyarrow.compute.scalar(constant), _kind(constant)
        if node.id not in self.schema.names:
            raise self.owner.wrong(f"there is no column {node.id}; one of {', '.join(self.schema.names)}")
        column = self.schema.field(node.id).type
        field = pyarrow.compute.field(node.id)
        if types.is_boolean(column):
            return field, TRUTH
        if types.is_integer(column) or types.is_floating(column):
            return field, NUMBER
        if types.is_string(column) or types.is_large_string(column):
            return field, TEXT
        raise self.owner.wrong(f"the column {node.id} holds {column}, which cannot be compared")


def _constant(node: ast.expr) -> float | str | bool | None:
    """The value of a node that is a number (also a negative one), a text, True or False.

    The result is None for any other node.
    """
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = _constant(node.operand)
        return -value if _kind(value) == NUMBER else None
    if not isinstance(node, ast.Constant) or _kind(node.value) is None:
        return None
    if isinstance(node.value, int) and abs(node.value) >= 2**63:
        return float(node.value) if abs(node.value) < 2**1000 else None
    return node.value


def _kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return TRUTH
    if isinstance(value, (int, float)):
        return NUMBER
    return TEXT if isinstance(value, str) else None


def say_kept(kept: int, of: int, condition: RowFilter, names: Sequence[object]) -> None:
    """Prints how many images a condition kept. Raises `UserError` if the condition kept no images."""
    from distdiff.console.progress import console

    places = ", ".join(map(str, names))
    if not kept:
        raise condition.wrong(f"it is true of none of the {of:,} images of {places}")
    console.print(f"{kept:,} of {of:,} images of {places} kept: {condition.key}={condition.words}")
