"""The blueprints that come with the package: found by name, and copied to be edited."""

from __future__ import annotations

import dataclasses
import difflib
import re
from pathlib import Path

import yaml

from chrysalis_mlx.blueprint.load import dump_blueprint, load_blueprint, parse_blueprint
from chrysalis_mlx.blueprint.schema import Blueprint
from chrysalis_mlx.errors import BlueprintError


def library() -> dict[str, Path]:
    """Name and file of every shipped blueprint, by name."""
    inside_wheel = Path(__file__).parent / "library"
    in_checkout = Path(__file__).parents[2] / "blueprints"
    directory = inside_wheel if inside_wheel.is_dir() else in_checkout
    return {path.stem: path for path in sorted(directory.glob("*.yaml"), key=lambda path: path.stem)}


def find_blueprint(name_or_path: str) -> Path:
    """The file of a shipped blueprint's name or of a path.

    Raises:
        BlueprintError: neither; with the nearest name.
    """
    shipped = library()
    if name_or_path in shipped:
        return shipped[name_or_path]
    if Path(name_or_path).is_file():
        return Path(name_or_path)
    near = difflib.get_close_matches(name_or_path, shipped, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"shipped: {', '.join(shipped)}"
    raise BlueprintError(f"there is no blueprint '{name_or_path}'", fix=f"{hint} A path to a YAML file works too.")


def copy_blueprint(name_or_path: str, file: Path) -> Blueprint:
    """Write a blueprint to a new file, comments and all, under the name of that file.

    The commands in its comments name the new file too.

    Raises:
        BlueprintError: no such blueprint, not a valid one, or the file is there already.
    """
    origin = find_blueprint(name_or_path)
    blueprint = load_blueprint(origin)
    renamed = dataclasses.replace(blueprint, name=file.stem)
    text = _renamed(origin.read_text(encoding="utf-8"), blueprint.name, file)
    try:
        faithful = parse_blueprint(text, where=str(file)) == renamed
    except BlueprintError:
        faithful = False
    if not faithful:  # its name stands in no line of its own
        text = dump_blueprint(renamed)
    try:
        with file.open("x", encoding="utf-8") as handle:
            handle.write(text)
    except FileExistsError:
        raise BlueprintError("there is a file already, and it stays", where=file, fix="name another") from None
    except OSError as error:
        raise BlueprintError(f"the file cannot be written: {error}", where=file) from error
    return renamed


def _renamed(text: str, old: str, file: Path) -> str:
    """A blueprint's text with the name of `file` in its name and its commands."""
    line = yaml.safe_dump({"name": file.stem}, allow_unicode=True, width=10_000).strip()
    text, found = re.subn(r"(?m)^name:.*$", lambda _: line, text, count=1)
    if not found:
        text += f"{'' if text.endswith(chr(10)) or not text else chr(10)}{line}\n"
    return re.sub(rf"(?m)^(#.*--blueprint ){re.escape(old)}(?=\s|$)", lambda match: f"{match[1]}{file}", text)
