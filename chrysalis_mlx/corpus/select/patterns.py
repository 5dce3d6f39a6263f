"""What a blueprint says about a file by its name alone: in or out, how early, how often.

Every pattern is a glob in which `*` also crosses slashes and upper case differs from lower case.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from chrysalis_mlx.blueprint.schema import CopiesSection, ExpressionSection
from chrysalis_mlx.corpus.document import Document


def pattern_rule(name: str, section: ExpressionSection) -> tuple[bool, str]:
    """Whether REPOSITORY/PATH is expressed, and the rule that says so; `exclude` wins over `include`."""
    for pattern in section.exclude:
        if fnmatchcase(name, pattern):
            return False, f"exclude: {pattern}"
    for pattern in section.include:
        if fnmatchcase(name, pattern):
            return True, f"include: {pattern}"
    return False, "not included"


def curriculum_key(document: Document, section: ExpressionSection) -> tuple[bool, int]:
    """Key that sorts documents from genome order into curriculum order.

    `first` in the order of its patterns, the rest, `last` in the order of its patterns; then the backups in the same
    way. A document that `first` and `last` both name belongs to `first`. Documents of equal keys stay in genome order.
    """
    rest = len(section.first)
    rank = _position(document, section.first)
    if rank is None:
        rank = _position(document, section.last)
        rank = rest if rank is None else rest + 1 + rank
    return document.backup, rank


def in_curriculum_order(documents: Iterable[Document], section: ExpressionSection) -> list[Document]:
    """Documents, given in genome order, in curriculum order."""
    return sorted(documents, key=lambda document: curriculum_key(document, section))


def weight_of(repository: str, section: ExpressionSection) -> float:
    """How often the files of a repository are seen in an epoch: the first glob that matches, else 1."""
    return next((weight for glob, weight in section.weights.items() if fnmatchcase(repository, glob)), 1.0)


def is_backup(repository: str, section: CopiesSection) -> bool:
    """Whether a repository holds older copies of others."""
    return any(fnmatchcase(repository, glob) for glob in section.backup_repositories)


def _position(document: Document, patterns: tuple[str, ...]) -> int | None:
    for position, pattern in enumerate(patterns):
        if fnmatchcase(document.repository, pattern) or fnmatchcase(document.name, pattern):
            return position
    return None
