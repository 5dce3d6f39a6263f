"""Python files: their functions and classes, and what the docstrings say of them."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from chrysalis_mlx.corpus.frame.section import Leaf

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Docstring(NamedTuple):
    """What is documented, for instance `the method Larva.eat`, and what is said of it."""

    subject: str
    text: str


def leaves(source: str) -> list[Leaf] | None:
    """The top-level functions and classes, and the code between them without titles; None where nothing parses."""
    # To `ast` a carriage return ends a line, even inside of a string.
    tree = None if re.search(r"\r(?!\n)", source) else _parsed(source)
    if tree is None:
        return None
    found, done = [], 0
    lines = [line + "\n" for line in source.split("\n")]
    for node in tree.body:
        if isinstance(node, _Definition) and node.end_lineno:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
            while first > done and lines[first - 1].startswith("#"):
                first -= 1  # a comment right above belongs to what it stands above
            if first > done:
                found.append(Leaf((), "", "", "".join(lines[done:first])))
            found.append(Leaf((), _subject(node), "", "".join(lines[first : node.end_lineno])))
            done = node.end_lineno
    return [*found, Leaf((), "", "", "".join(lines[done:]))]


def docstrings(source: str) -> Iterator[Docstring]:
    """The docstrings of the module, of its functions, classes and their methods."""
    tree = _parsed(source)
    if tree is None:
        return
    if text := ast.get_docstring(tree):
        yield Docstring("the module", text)
    for node in tree.body:
        if isinstance(node, _Definition):
            yield from _documented(node, "")
            for child in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(child, _Definition):
                    yield from _documented(child, node.name + ".")


def _documented(node: _Definition, scope: str) -> Iterator[Docstring]:
    if text := ast.get_docstring(node):
        yield Docstring(_subject(node, scope), text)


def _subject(node: _Definition, scope: str = "") -> str:
    kind = "class" if isinstance(node, ast.ClassDef) else "method" if scope else "function"
    return f"the {kind} {scope}{node.name}"


def _parsed(source: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():  # of escapes in other people's strings
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
