"""Which files of a genome a blueprint expresses, and why the others stay silent."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from chrysalis_mlx.blueprint.schema import ExpressionSection
from chrysalis_mlx.genome.text.format import GenomeFile


@dataclass(frozen=True)
class Verdict:
    """Whether one file is expressed.

    Attributes:
        rule: what decided: `include: PATTERN`, `exclude: PATTERN`, `not included`, `too short`, `duplicate of NAME`.
        digest: sha256 of the normalized content; equal digests are one document.
    """

    file: GenomeFile
    expressed: bool
    rule: str
    digest: str


def express(files: Iterable[GenomeFile], section: ExpressionSection) -> Iterator[Verdict]:
    """Judge every file, in genome order; of equal contents the first expressed one survives."""
    survivors: dict[str, str] = {}
    for file in files:
        name = f"{file.repository}/{file.path}"
        digest = content_digest(file.text)
        expressed, rule = _pattern_rule(name, section)
        if expressed and len(file.text.strip()) < section.min_characters:
            expressed, rule = False, f"too short: under {section.min_characters} characters"
        if expressed and digest in survivors:
            expressed, rule = False, f"duplicate of {survivors[digest]}"
        if expressed:
            survivors[digest] = name
        yield Verdict(file, expressed, rule, digest)


def content_digest(text: str) -> str:
    """sha256 of a text without what a copy may differ in: a byte order mark, line ends, white space at either end."""
    normalized = re.sub(r"[ \t]*\r?\n", "\n", text.removeprefix("\ufeff")).strip()
    return hashlib.sha256(normalized.encode("utf-8", "surrogatepass")).hexdigest()


def _pattern_rule(name: str, section: ExpressionSection) -> tuple[bool, str]:
    for pattern in section.exclude:
        if fnmatchcase(name, pattern):
            return False, f"exclude: {pattern}"
    for pattern in section.include:
        if fnmatchcase(name, pattern):
            return True, f"include: {pattern}"
    return False, "not included"
