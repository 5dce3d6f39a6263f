"""What a repository would tell of this machine and of the sources, before anybody can read it.

A file that was public once is public for good: copies are made within seconds. So what looks as if it were not meant
for everybody is found here, and whoever pushes has to say that it is.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from chrysalis_mlx.export.lineage.lineage import Lineage, metadata
from chrysalis_mlx.genome.files.secrets import SecretScanner
from chrysalis_mlx.genome.git.remote import shown
from chrysalis_mlx.hub.files import File
from chrysalis_mlx.run import Run

_TEXT_BYTES = 1 << 20  # a longer file of an export is a tokenizer or weights
_SCP_LIKE = re.compile(r"(?:[^/@]+@)?(?P<host>[^/:]+):(?!//)")
_HIDDEN_DOMAINS = (".local", ".localhost", ".lan", ".internal", ".intranet", ".corp", ".home", ".test")
_SHOWN = 5
# A setting that says where something lay, and an absolute path in it.
_PLACE = re.compile(r'"\w*(?:path|dir|directory|file)"\s*:\s*"((?:[/~]|[A-Za-z]:)/?[^"]+)"')
_VOCABULARIES = ("tokenizer.json", "vocab.json")  # their words may look like anything
_SPOKEN = re.compile(r"^(?:SYSTEM|MESSAGE) ", re.MULTILINE)


@dataclass(frozen=True)
class Disclosure:
    """What to know before a repository is published.

    Attributes:
        notes: what it says, and what is not known, of sources and licences.
        private: what looks as if it were not meant for everybody.
    """

    notes: tuple[str, ...]
    private: tuple[str, ...]


def disclosure(run: Run, lineage: Lineage, files: Sequence[File]) -> Disclosure:
    """Look through everything that is going to be readable.

    Args:
        files: all of the repository, its card among them.
    """
    texts = {file.path: _text(file) for file in files if file.bytes <= _TEXT_BYTES}
    notes = [*_notes(lineage)]
    if _SPOKEN.search(texts.get("Modelfile", "")):
        notes.append("the Modelfile tells the system prompt and the messages that go with it")
    if any(file.path.endswith(".gguf") for file in files):
        texts["the GGUF files"] = "\n".join(map(str, metadata(lineage).values()))
    return Disclosure(tuple(notes), (*_hidden_sources(lineage), *_paths(run, texts), *_secrets(texts)))


def _notes(lineage: Lineage) -> Iterator[str]:
    repositories = lineage.repositories
    if repositories:
        local = sum(item.kind != "remote" for item in repositories)
        yield (
            f"the name, commit and licence of {len(repositories)} repositories are told"
            + (f"; {local} of them are folders of this machine, whose paths are not told" if local else "")
        )
        if unknown := sum(item.licence is None for item in repositories):
            yield f"{unknown} of them state no licence: whether you may pass on what they taught is not known"
    if lineage.base.licence is None:
        yield "the licence of the base model is not known here: find out whether you may pass the model on"
    if lineage.base.hub is None:
        yield "the base model was a local copy: the card cannot name it on the Hub"


def _hidden_sources(lineage: Lineage) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for item in lineage.repositories:
        if item.kind == "remote" and item.location and (why := _hidden(item.location)):
            found.setdefault(why, []).append(shown(item.location))
    for why, locations in found.items():
        more = f" and {len(locations) - _SHOWN} more" if len(locations) > _SHOWN else ""
        yield f"{why}: {', '.join(locations[:_SHOWN])}{more}"


def _hidden(location: str) -> str | None:
    """Why a repository's address looks as if not everybody could read it."""
    try:
        url = urlsplit(location)
        scheme, host = (url.scheme.lower(), url.hostname or "") if "://" in location else ("", "")
    except ValueError:
        return "an address that is no URL"
    if scheme == "file":
        return "a path of this machine"
    if scheme == "ssh" or (not scheme and _SCP_LIKE.match(location)):
        return "an address for those who have a key"
    return "a host that is not on the open Internet" if _is_hidden_host(host) else None


def _is_hidden_host(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith(_HIDDEN_DOMAINS)


def _paths(run: Run, texts: Mapping[str, str]) -> Iterator[str]:
    """Paths of this machine, in what is text and in the keys of the GGUF files."""
    known = _own_paths(run)
    for name, text in texts.items():
        if found := known.search(text):
            yield f"{name} names a path of this machine: {found[0]}"
        elif found := _PLACE.search(text):
            yield f"{name} names a path of this machine: {found[1]}"


def _secrets(texts: Mapping[str, str]) -> Iterator[str]:
    """What looks like a password or key, which is itself not told."""
    scanner = SecretScanner()
    for name, text in texts.items():
        if Path(name).name not in _VOCABULARIES and (found := scanner.scan(name, text)):
            yield f"{name} may hold a password or key: {found.type}, line {found.line}"


def _own_paths(run: Run) -> re.Pattern[str]:
    """The paths that the run's record knows, and everything in the user's home."""
    record = run.record
    recorded = [record["model"]["directory"], *(record[name]["path"] for name in ("genome", "data") if name in record)]
    paths = [str(run.directory.absolute()), *recorded]
    home = re.escape(str(Path.home())) + r"/[\w.-]+"
    return re.compile("|".join([*(re.escape(path) for path in paths), home]))


def _text(file: File) -> str:
    content = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
    # Markdown and JSON may put a backslash before any sign of a path.
    return "" if b"\x00" in content else content.decode("utf-8", "replace").replace("\\", "")
