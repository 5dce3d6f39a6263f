"""What a base model says of itself: its name, its owner, its licence, its languages.

Of a directory that is its README.md, a model card of the Hub, and its LICENSE; of a .gguf file its `general.*` keys.
Nothing is guessed: what nobody says stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.genome.files.licence import UNRECOGNISED, is_licence_file, licence_of
from chrysalis_mlx.gguf.keys import read_keys
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.models.parameters import counted

HUB = "https://huggingface.co"

# SPDX identifiers that `licence_of` finds and the Hub lists (docs/hub/repositories-licenses), which writes them small.
_ON_HUB = (
    "Apache-2.0", "MIT", "BSL-1.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0",
    "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "WTFPL", "AGPL-3.0", "GPL-2.0", "GPL-3.0", "LGPL-2.1", "LGPL-3.0", "ISC",
    "MPL-2.0", "Unlicense", "Zlib",
)  # fmt: skip
_FRONT = re.compile(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_SNAPSHOT = re.compile(r"/(models|datasets)--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})(?:/|\Z)")
_QUANTIZED = re.compile(r"[.-](?:I?Q\d\w*|TQ\d\w*|MXFP4\w*|B?F16|F32)\Z", re.IGNORECASE)
_SIZE = re.compile(r"(?:\d+x)?\d+(?:[._]\d+)?[KMBT]", re.IGNORECASE)
_ACTIVE = re.compile(r"A\d+(?:\.\d+)?[KMBT]", re.IGNORECASE)  # of a mixture: what a token passes through
_LICENCE_BYTES = 1 << 20


@dataclass(frozen=True)
class Licence:
    """A licence that somebody stated.

    Attributes:
        id: as the Hub lists it; `other` for one that it does not list.
        name, link: of one that it does not list.
        told_by: who stated it.
    """

    id: str
    told_by: str
    name: str | None = None
    link: str | None = None

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name or self.id


@dataclass(frozen=True)
class HubSnapshot:
    """What the Hub's cache says of a path in it: `owner/name` and the commit."""

    id: str
    commit: str

    @classmethod
    def of(cls, path: Path, kind: str = "models") -> HubSnapshot | None:
        """The snapshot that a path lies in; None for one outside of the cache."""
        found = _SNAPSHOT.search(path.as_posix())
        return cls(f"{found[2]}/{found[3]}", found[4]) if found and found[1] == kind else None


@dataclass(frozen=True)
class BaseModel:
    """A base model, as far as it is known.

    Attributes:
        name: without its owner.
        hub: where it lies on the Hub.
        organization: its owner.
        parameters: how many it has.
        made_from: Hub ids of the models that it says it was made from.
        datasets: Hub ids of the data that it says it was trained on.
    """

    name: str
    hub: HubSnapshot | None = None
    organization: str | None = None
    licence: Licence | None = None
    languages: tuple[str, ...] = ()
    parameters: int | None = None
    made_from: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()

    @classmethod
    def read(cls, source: str, directory: Path) -> BaseModel:
        """What can be known of a model.

        Args:
            source: what the user named: a directory, a .gguf file or a Hub id.
            directory: where it lies; it may be gone.
        """
        hub = HubSnapshot.of(directory)
        path = Path(source).expanduser()
        name = hub.id.split("/")[1] if hub else plain_name(path.absolute().name or source)
        told = _told(path, directory)
        card = _front_matter(directory / "README.md")
        owner = hub.id.split("/")[0] if hub else _text(told.get("general.organization"))
        return cls(
            name,
            hub,
            owner,
            _card_licence(card, hub) or _file_licence(directory) or _key_licence(told),
            _texts(card.get("language")) or _texts(told.get("general.languages")),
            _parameters(directory),
            _texts(card.get("base_model")),
            _texts(card.get("datasets")),
        )


def plain_name(text: str) -> str:
    """A file's or directory's name without .gguf and its type; bytes that are not UTF-8 become question marks."""
    return _QUANTIZED.sub("", text.removesuffix(".gguf")).encode("utf-8", "replace").decode("utf-8")


def name_parts(name: str, parameters: int | None) -> tuple[str, str, str | None] | None:
    """Base name, size and what it was tuned for, as llama.cpp's naming of files has them.

    Returns:
        `SmolLM2-135M-Instruct` -> (`SmolLM2`, `135M`, `Instruct`); None for a name without the size of the model.
        A number that is far from the model's parameters (4k: its context) is no size.
    """
    parts = name.split("-")
    for place in range(1, len(parts)):
        if not _SIZE.fullmatch(parts[place]) or _is_far(parts[place], parameters):
            continue
        end = place + 1 + (place + 1 < len(parts) and _ACTIVE.fullmatch(parts[place + 1]) is not None)
        size = "-".join(part.replace("_", ".").upper().replace("X", "x") for part in parts[place:end])
        return "-".join(parts[:place]), size, "-".join(parts[end:]) or None
    return None


def size_label(parameters: int) -> str:
    """A number of parameters as llama.cpp writes it: 135M, 1.7B, 31B."""
    unit, mark = next(((10**power, mark) for power, mark in ((12, "T"), (9, "B"), (6, "M")) if parameters > 10**power),
                      (1000, "K"))  # fmt: skip
    number = parameters / unit
    digits = len(str(round(number)).lstrip("0"))
    return f"{number:.{max(2 - digits, 0)}f}{mark}"


def _is_far(size: str, parameters: int | None) -> bool:
    if parameters is None or "x" in size.lower():
        return False
    stated = float(size[:-1].replace("_", ".")) * 1000.0 ** " KMBT".index(size[-1].upper())
    return abs(stated - parameters) > 7 * parameters / 8


def _told(source: Path, directory: Path) -> Mapping[str, Any]:
    """The keys of the .gguf file that the directory was imported from."""
    if source.suffix != ".gguf" or source == directory:
        return {}
    try:
        return read_keys(source)
    except (ModelError, OSError):
        return {}


def _front_matter(file: Path) -> dict[str, Any]:
    """The YAML at the top of a model card; empty where there is none that can be read."""
    import yaml

    try:
        found = _FRONT.match(file.read_text(encoding="utf-8-sig", errors="replace"))
        # Qwen's cards have held tabs, which YAML forbids.
        value = yaml.safe_load(found[1].replace("\t", "  ")) if found else None
    except (OSError, yaml.YAMLError, ValueError):  # ValueError: a date that does not exist
        return {}
    return value if isinstance(value, dict) else {}


def _card_licence(card: Mapping[str, Any], hub: HubSnapshot | None) -> Licence | None:
    stated = _texts(card.get("license"))
    if not stated or stated == ("unknown",):
        return None
    name, link = _text(card.get("license_name")), _text(card.get("license_link"))
    if link and "://" not in link:  # a file of its repository
        link = f"{HUB}/{hub.id}/blob/{hub.commit}/{link.removeprefix('./')}" if hub else None
    if len(stated) > 1:
        return Licence("other", "its README.md", ", ".join(stated), link)
    return Licence(stated[0], "its README.md", name, link)


def _file_licence(directory: Path) -> Licence | None:
    texts = {}
    if directory.is_dir():
        for file in sorted(directory.iterdir()):
            if is_licence_file(file.name) and file.is_file() and file.stat().st_size < _LICENCE_BYTES:
                texts[file.name] = file.read_text(encoding="utf-8", errors="replace")
    found = licence_of(texts)
    if found is None or found == UNRECOGNISED:
        return None
    told_by = f"its {' and '.join(texts)}"
    return Licence(found.lower(), told_by) if found in _ON_HUB else Licence("other", told_by, found)


def _key_licence(keys: Mapping[str, Any]) -> Licence | None:
    stated = _text(keys.get("general.license"))
    if not stated:
        return None
    return Licence(
        stated, "its .gguf file", _text(keys.get("general.license.name")), _text(keys.get("general.license.link"))
    )


def _parameters(directory: Path) -> int | None:
    try:
        model = ModelDirectory.open(directory)
        return counted(model.checkpoint(), model.config)
    except ModelError:
        return None


def _text(value: object) -> str | None:
    return value.strip() if isinstance(value, str) and value.strip() else None


def _texts(value: object) -> tuple[str, ...]:
    """A text or a list of texts, as YAML gives it: it reads Norwegian, `no`, as False."""
    items = value if isinstance(value, list) else [value]
    return tuple(text for item in items if (text := "no" if item is False else _text(item)))
