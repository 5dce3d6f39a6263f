"""What a genome.yaml says: which repositories, in what order, and which of their files. The one definition of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from chrysalis_mlx.config import option, required

VERSION = 1

# The types that the asi-ecosystem's own pipeline reads.
_DOCUMENTS, _DATA = (".md", ".txt", ".rst"), (".json", ".yaml", ".yml", ".toml", ".xml", ".ini")
_CODE = (".py", ".rs", ".js", ".ts", ".java", ".c", ".h", ".cpp", ".go", ".sh")
TEXT_TYPES = _DOCUMENTS + _DATA + _CODE


@dataclass(frozen=True)
class SourceEntry:
    """One source. Written as a text alone, that text is its location."""

    location: str = required(
        "a git URL, a checkout, a directory, or readme:URL-or-FILE#OWNER; #REF may follow the first two",
    )
    name: str | None = option(None, "its name in the genome; by default the last part of the location")
    ref: str | None = option(None, "branch or tag; by default what the remote or the checkout has checked out")
    commit: str | None = option(None, "exactly this commit, all its hexadecimal digits")
    folder: str = option("", "only this folder of it")
    exclude: tuple[str, ...] = option((), "of a readme: names or globs of repositories that stay out")


@dataclass(frozen=True)
class FileRules:
    """Which files of a repository become part of the genome, and how."""

    text: tuple[str, ...] = option(TEXT_TYPES, "suffixes of files taken byte for byte")
    notebook: tuple[str, ...] = option((".ipynb",), "suffixes of notebooks: their source and Markdown, no outputs")
    table: tuple[str, ...] = option((".csv",), "suffixes of tables: their head")
    table_rows: int = option(20, "rows of a table that are taken, after the header", minimum=0)
    include: tuple[str, ...] = option((), "globs; when there are any, they take the place of the suffixes")
    exclude: tuple[str, ...] = option((), "globs of files that stay out in any case")
    max_bytes: int = option(2 * 1024 * 1024, "larger files are left out", minimum=1)
    secrets: Literal["leave-out", "keep"] = option("leave-out", "what becomes of a file that holds a secret")
    detectors: tuple[str, ...] = option((), "detect-secrets plugins; empty for the default ones")
    licences: tuple[str, ...] = option((), "globs on SPDX ids; when there are any, other repositories stay out")


@dataclass(frozen=True)
class GenomeConfig:
    """The whole file."""

    sources: tuple[SourceEntry, ...] = required("a list of sources")
    version: Literal[1] = option(VERSION, "of this schema")
    first: tuple[str, ...] = option((), "names or globs of repositories that stand first, in this order")
    last: tuple[str, ...] = option(
        (), "names or globs of repositories that stand last, in this order; the rest by name"
    )
    renamed: dict[str, str] = field(
        default_factory=dict,
        metadata={"doc": "old name: new name, where a list still calls a repository by the old one"},
    )
    history: bool = option(False, "clone the whole history and not the pinned commit alone")
    fsck_ignore: tuple[str, ...] = option(
        (), "git fsck message ids that old repositories may keep, such as zeroPaddedFilemode"
    )
    files: FileRules = field(default_factory=FileRules)
