"""The blueprints that come with the package."""

from __future__ import annotations

import difflib
from pathlib import Path

from chrysalis_mlx.errors import BlueprintError


def library() -> dict[str, Path]:
    """Name and file of every shipped blueprint, by name."""
    inside_wheel = Path(__file__).parent / "library"
    in_checkout = Path(__file__).parents[2] / "blueprints"
    directory = inside_wheel if inside_wheel.is_dir() else in_checkout
    return {path.stem: path for path in sorted(directory.glob("*.yaml"))}


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
