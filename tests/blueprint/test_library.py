"""The shipped blueprints, and how one is found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chrysalis_mlx.blueprint.library import find_blueprint, library
from chrysalis_mlx.blueprint.load import load_blueprint
from chrysalis_mlx.errors import BlueprintError
from chrysalis_mlx.gguf.quantize import file_type

SHIPPED = ("demo", "qwen3-0.6b", "smollm2-135m-instruct", "tiny")


def test_these_blueprints_are_shipped() -> None:
    assert tuple(library()) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_blueprint_loads_and_its_launch_command_names_itself(name: str) -> None:
    path = library()[name]
    blueprint = load_blueprint(path)
    assert blueprint.name == path.stem == name
    assert blueprint.description
    command = re.search(r"^#   chrysalis-mlx grow (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert command
    options = command[1].split()
    assert options[options.index("--blueprint") + 1] == name
    assert "--genome" in options
    if "--model" not in options:
        assert blueprint.model.source
    for kind in blueprint.export.quantize:
        assert file_type(kind)


def test_a_name_a_path_and_a_near_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("name: own\n")
    assert find_blueprint("tiny") == library()["tiny"]
    assert find_blueprint(str(own)) == own
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").write_text("name: other\n")
    assert find_blueprint("tiny") == library()["tiny"]
    with pytest.raises(BlueprintError, match=r"no blueprint 'qwen-0\.6b'(.|\n)*did you mean 'qwen3-0\.6b'\?"):
        find_blueprint("qwen-0.6b")
    with pytest.raises(BlueprintError, match=r"no blueprint 'xyz'(.|\n)*shipped: demo, qwen3-0\.6b"):
        find_blueprint("xyz")
