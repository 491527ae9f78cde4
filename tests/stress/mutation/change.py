"""Changes of a program by its syntax tree, so that a deliberate bug outlives renamed files, lines and comments.

An edit names a function by its qualified name, a pattern and what it becomes. The pattern is an expression, or one
statement or several in a row. A name that is one capital letter stands for any expression, in what it becomes, too:

>>> source = "def f(x, y):\\n    return g(x + 1) / y"
>>> print(changed(source, Edit("f", "g(A) / B", "B / g(A)")))
def f(x, y):
    return y / g(x + 1)

The pattern must be there exactly once; anything else is an error, so a bug that can no longer be made is noticed.
"""

from __future__ import annotations

import ast
import copy
import re
import textwrap
from dataclasses import dataclass
from typing import Any

__all__ = ["Edit", "changed"]


@dataclass(frozen=True)
class Edit:
    """In `where`, a function by its qualified name ("": the module itself), `old` becomes `new` (nothing: it goes)."""

    where: str
    old: str
    new: str


def changed(source: str, *edits: Edit) -> str:
    """Return the program with these changes; LookupError unless each pattern is in its function exactly once."""
    if not edits:
        return source
    module = ast.parse(source)
    functions = {edit.where: _function(module, edit.where) for edit in edits}
    for edit in edits:
        change = _Expressions(edit) if _is_expression(edit.old) else _Statements(edit)
        change.visit(functions[edit.where])
        if change.found != 1:
            place = edit.where or "the module"
            raise LookupError(f"{edit.old!r} is in {place} {change.found} times, expected exactly once")
    if "" in functions:
        return ast.unparse(module)
    lines = source.splitlines(keepends=True)
    for function in sorted(functions.values(), key=lambda node: -node.lineno):
        first = min(node.lineno for node in (function, *function.decorator_list)) - 1
        text = textwrap.indent(ast.unparse(function), " " * function.col_offset)
        lines[first : function.end_lineno] = [text + "\n"]
    return "".join(lines)


def _function(module: ast.Module, name: str) -> Any:
    """Return the function or class of that qualified name."""
    node: Any = module
    for part in name.split(".") if name else ():
        found = [
            child
            for child in ast.iter_child_nodes(node)
            if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == part
        ]
        if not found:
            raise LookupError(f"there is no {name}: {part} is missing")
        node = found[-1]
    return node


def _is_expression(text: str) -> bool:
    try:
        ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    return True


Bindings = dict[str, ast.AST]


def _match(pattern: object, node: object, bound: Bindings) -> bool:
    """Return whether a tree is an instance of a pattern; what its variables stand for is added to `bound`."""
    if isinstance(pattern, ast.Name) and re.fullmatch("[A-Z]", pattern.id):
        if not isinstance(node, ast.expr):
            return False
        known = bound.setdefault(pattern.id, node)
        return ast.dump(known) == ast.dump(node)
    if isinstance(pattern, ast.AST):
        if type(pattern) is not type(node):
            return False
        fields = (name for name in pattern._fields if name not in ("ctx", "type_comment", "kind"))
        return all(_match(getattr(pattern, name), getattr(node, name), bound) for name in fields)
    if isinstance(pattern, list):
        same = isinstance(node, list) and len(pattern) == len(node)
        return same and all(_match(a, b, bound) for a, b in zip(pattern, node, strict=True))
    return pattern == node


class _Filled(ast.NodeTransformer):
    """Puts in what the variables of a pattern stand for."""

    def __init__(self, bound: Bindings) -> None:
        self.bound = bound

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return copy.deepcopy(self.bound.get(node.id, node))


class _Expressions(ast.NodeTransformer):
    """Replaces expressions."""

    def __init__(self, edit: Edit) -> None:
        self.found = 0
        self.old, self.new = (ast.parse(text, mode="eval").body for text in (edit.old, edit.new))

    def visit(self, node: ast.AST) -> ast.AST:
        bound: Bindings = {}
        if isinstance(node, ast.expr) and _match(self.old, node, bound):
            self.found += 1
            return _Filled(bound).visit(copy.deepcopy(self.new))
        return self.generic_visit(node)


class _Statements(ast.NodeTransformer):
    """Replaces statements that stand in a row."""

    def __init__(self, edit: Edit) -> None:
        self.found = 0
        self.old, self.new = ast.parse(edit.old).body, ast.parse(edit.new or "pass").body

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                setattr(node, name, self._replaced(block))
        return node

    def _replaced(self, block: list[ast.stmt]) -> list[ast.stmt]:
        after, at = list[ast.stmt](), 0
        while at < len(block):
            bound: Bindings = {}
            if _match(self.old, block[at : at + len(self.old)], bound):
                self.found += 1
                after += [_Filled(bound).visit(copy.deepcopy(statement)) for statement in self.new]
                at += len(self.old)
            else:
                after.append(block[at])
                at += 1
        return after
