"""Where a genome comes from: which repositories, under which names, in which order.

A source is written `[NAME=]LOCATION[#REF]` on the command line and as an entry of genome.yaml. Its location is a git
URL, a checkout, a plain directory, or `readme:URL-or-FILE#OWNER`, which stands for every repository of that owner that
a Markdown table of the document links.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from chrysalis_mlx.config import from_plain, read_yaml
from chrysalis_mlx.errors import GenomeError
from chrysalis_mlx.genome.git.command import GitError, GitMissingError, git
from chrysalis_mlx.genome.git.remote import is_remote, shown
from chrysalis_mlx.genome.sources.pins import OID, Kind, clashes, name_problem, place_problem
from chrysalis_mlx.genome.sources.readme import PREFIX, listed_repositories
from chrysalis_mlx.genome.sources.schema import GenomeConfig, SourceEntry


@dataclass(frozen=True)
class Source:
    """One repository to be pinned.

    Attributes:
        name: its name in the genome.
        kind: a `remote` to clone, a git `checkout` on this computer, or a plain `directory`.
        location: URL, or path as it was written.
        ref: branch or tag; None for what is checked out there.
        commit: exactly this one, when it is named.
        folder: only this folder of it.
    """

    name: str
    kind: Kind
    location: str
    ref: str | None = None
    commit: str | None = None
    folder: str = ""


def load_config(path: Path) -> GenomeConfig:
    """Read and check a genome.yaml.

    Raises:
        GenomeError: not readable, not YAML, or any number of wrong fields, each with YAML path, value and fix.
    """
    try:
        config, problems = from_plain(GenomeConfig, read_yaml(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise GenomeError(f"the list of sources cannot be read: {error}", where=path) from error
    except ValueError as error:
        raise GenomeError(f"the list of sources is not valid YAML: {error}", where=path) from error
    if config is not None:
        problems = _contradictions(config)
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise GenomeError(f"the list of sources has {len(problems)} problem(s):{lines}", where=path)
    return typing.cast(GenomeConfig, config)


def config_of(texts: Sequence[str]) -> GenomeConfig:
    """What a command line names, `[NAME=]LOCATION[#REF]` each, as a genome.yaml would say it; paths become absolute."""
    entries = []
    for text in texts:
        name, separator, location = text.partition("=")
        if not separator or "/" in name or ":" in name:  # ./a=b is a directory with an odd name, file:///h/a=b a URL
            name, location = "", text
        path, _, _ = (location, "", "") if os.path.exists(location) else location.rpartition("#")
        if path and os.path.exists(os.path.expanduser(path)):
            location = os.path.abspath(os.path.expanduser(path)) + location[len(path) :]
        entries.append(SourceEntry(location, name or None))
    return GenomeConfig(tuple(entries))


def find_sources(config: GenomeConfig, base: Path, *, as_written: bool = False) -> list[Source]:
    """Every repository that a configuration names, in curriculum order.

    Args:
        config: what was asked for.
        base: the folder that relative paths count from.
        as_written: keep the order of the entries instead of sorting by name between `first` and `last`.

    Raises:
        GenomeError: a location that is nothing, no usable name, two repositories of one name, or an order that names
            what is not there.
    """
    found: dict[str, Source] = {}
    listed: list[Source] = []
    for entry in config.sources:
        if entry.location.startswith(PREFIX):
            listed += _listed(entry, config, base)
            continue
        source = _source(entry, config, base)
        if source.name in found:
            other = found[source.name]
            raise GenomeError(
                f"two sources are called {source.name!r}",
                where=f"{shown(other.location)} and {shown(source.location)}",
                fix="give one of them another name: NAME=LOCATION, or name: in genome.yaml",
            )
        found[source.name] = source
    for source in listed:
        # What an entry says of its own outranks what a list says.
        found.setdefault(source.name, source)
    for name, twin, *_ in clashes(found):
        raise GenomeError(f"the names {name!r} and {twin!r} are one folder on some computers", fix="rename one of them")
    return list(found.values()) if as_written else _ordered(list(found.values()), config)


def _listed(entry: SourceEntry, config: GenomeConfig, base: Path) -> list[Source]:
    sources = []
    for url in listed_repositories(entry.location, base):
        start, _, old = url.rpartition("/")
        name = config.renamed.get(old, old)
        if any(fnmatchcase(name, glob) or fnmatchcase(old, glob) for glob in entry.exclude):
            continue
        _refuse_place(url)
        if problem := name_problem(name):
            raise GenomeError(
                problem, where=shown(url), fix="leave it out of the list (exclude), or rename it (renamed)"
            )
        sources.append(Source(name, "remote", f"{start}/{name}", entry.ref))
    return sources


def _source(entry: SourceEntry, config: GenomeConfig, base: Path) -> Source:
    location, ref = entry.location, entry.ref
    local = base / os.path.expanduser(location)
    if not os.path.exists(local) and "#" in location:
        location, _, fragment = location.rpartition("#")
        ref, local = entry.ref or fragment, base / os.path.expanduser(location)
    if (ref or "").startswith("-") or location.startswith("-"):
        what = "a location or ref that starts with '-' would be an option of git"
        raise GenomeError(what, where=shown(entry.location))
    _refuse_place(location)
    folder = entry.folder.strip("/")
    is_here = os.path.exists(local)
    name = entry.name or os.path.basename(os.path.normpath(local if is_here else location)).removesuffix(".git")
    name = config.renamed.get(name, name)
    if problem := name_problem(name):
        raise GenomeError(problem, where=shown(entry.location), fix="name the source: NAME=LOCATION")
    if not is_here and is_remote(location):
        return Source(name, "remote", location, ref, entry.commit, folder)
    return _local(Source(name, "directory", location, ref, entry.commit, folder), local)


def _refuse_place(place: str) -> None:
    """Refuse a URL or path that a lock cannot or must not name."""
    if problem := place_problem(place):
        raise GenomeError(
            f"a lock cannot name it: {problem}", where=ascii(place), fix="rename the folder, or name another place"
        )
    if place.lower().startswith(("http://", "https://")) and "?" in place:
        raise GenomeError(
            "git cannot use a URL with a query: it would put its own paths behind it",
            where=shown(place),
            fix="leave out the '?' and what follows; a token belongs into git's credential helper",
        )
    if shown(place) != place:
        raise GenomeError(
            "a lock is shared, and this URL holds a password or a token",
            where=shown(place),
            fix="take it out and let git's credential helper keep it (git help credentials), or use ssh",
        )


def _local(source: Source, path: Path) -> Source:
    """A directory or, when git knows it, a checkout with the folder that is meant."""
    # Not Path.is_dir and Path.exists, which raise where a path is too long or may not be looked at.
    if not os.path.isdir(path):
        is_file = os.path.exists(path)
        what = (
            "a source is a directory, and this is a file" if is_file else "there is no such directory that can be seen"
        )
        raise GenomeError(what, where=path, fix="name a directory, a git checkout or a URL: NAME=LOCATION")
    prefix = _prefix_in_checkout(path)
    if prefix is None:
        if source.ref or source.commit:
            raise GenomeError(
                "a plain directory has no commits", where=path, fix="leave out ref and commit, or name a git checkout"
            )
        return source
    folder = "/".join(part for part in (prefix, source.folder) if part)
    top = (
        os.fsdecode(git(path, "rev-parse", "--show-toplevel", discover=True)).removesuffix("\n")
        if prefix
        else source.location
    )
    _refuse_place(top)
    _refuse_place(folder)
    return dataclasses.replace(source, kind="checkout", location=top, folder=folder)


def _prefix_in_checkout(path: Path) -> str | None:
    """The folder's path in the checkout that it belongs to, empty for its top; None when it belongs to none."""
    try:
        if git(path, "rev-parse", "--is-inside-work-tree", discover=True).strip() != b"true":
            raise GenomeError(
                "this is a repository without a work tree", where=path, fix=f"name it as a URL: file://{path.resolve()}"
            )
        prefix = os.fsdecode(git(path, "rev-parse", "--show-prefix", discover=True)).removesuffix("\n").rstrip("/")
        # A folder inside somebody's checkout that holds nothing of it, such as an ignored one, is a plain directory.
        return prefix if not prefix or git(path, "ls-files", "-z", "--", ".", discover=True) else None
    except GitError as error:
        if "not a git repository" in error.words:
            return None
        raise
    except GitMissingError:
        if any((folder / ".git").exists() for folder in (path, *path.resolve().parents)):
            raise
        return None  # no git on this computer, and no need of it


def _ordered(sources: Sequence[Source], config: GenomeConfig) -> list[Source]:
    """`first`, then the rest by name, then `last`; an old name stands for the new one."""
    rest = sorted(sources, key=lambda source: source.name)
    taken: dict[str, list[Source]] = {"first": [], "last": []}
    for where, patterns in (("first", config.first), ("last", config.last)):
        for pattern in patterns:
            pattern = config.renamed.get(pattern, pattern)
            matching = [source for source in rest if fnmatchcase(source.name, pattern)]
            if not matching:
                raise GenomeError(
                    f"{where}: {pattern!r} matches none of the sources that are left",
                    where=", ".join(source.name for source in rest) or "none",
                    fix="name one of these, or take it out of the list",
                )
            taken[where] += matching
            rest = [source for source in rest if source not in matching]
    return [*taken["first"], *rest, *taken["last"]]


def _contradictions(config: GenomeConfig) -> list[str]:
    problems = [] if config.sources else ["sources: an empty list makes no genome"]
    for index, entry in enumerate(config.sources):
        at = f"sources[{index}]"
        if entry.ref and entry.commit:
            problems.append(f"{at}: ref and commit contradict each other; a commit says everything")
        if entry.location.startswith(PREFIX) and (entry.name or entry.commit or entry.folder):
            problems.append(f"{at}: name, commit and folder mean one repository, and a readme lists many")
        if entry.exclude and not entry.location.startswith(PREFIX):
            problems.append(f"{at}.exclude: names repositories of a readme; files go to files.exclude")
        if entry.commit and not OID.fullmatch(entry.commit):
            problems.append(
                f"{at}.commit: {entry.commit!r} is not all 40 or 64 hexadecimal digits of one; ref takes names"
            )
        if ".." in entry.folder.split("/"):
            problems.append(f"{at}.folder: {entry.folder!r} leads out of the repository")
    for name in ("text", "notebook", "table"):
        for suffix in getattr(config.files, name):
            if not suffix.startswith(".") or suffix != suffix.lower():
                problems.append(f"files.{name}: {suffix!r} is no suffix; write it small, with its dot: .md")
    if not config.files.include and not (config.files.text or config.files.notebook or config.files.table):
        problems.append("files: with neither suffixes nor include there is nothing to take")
    return problems
