"""The shipped blueprints, how one is found, and how one is copied."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from chrysalis_mlx.blueprint.library import copy_blueprint, find_blueprint, library
from chrysalis_mlx.blueprint.load import dump_blueprint, load_blueprint, parse_blueprint
from chrysalis_mlx.blueprint.schema import CopiesSection, GatesSection
from chrysalis_mlx.errors import BlueprintError
from chrysalis_mlx.gguf.quantize import file_type

SHIPPED = (
    "demo", "gemma-3-1b", "gemma-3-270m", "llama-3.2-1b", "phi-3-mini-qlora", "qwen3-0.6b", "qwen3-0.6b-base",
    "qwen3-4b-qlora", "smollm2-135m-instruct", "smollm2-360m", "tiny", "whole-genome",
)  # fmt: skip
FILES = sorted((Path(__file__).parents[2] / "blueprints").rglob("*.yaml"))
GENERAL = {"demo", "tiny", "whole-genome"}


def test_these_blueprints_are_shipped() -> None:
    assert tuple(library()) == SHIPPED
    assert set(library().values()) == set(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_blueprint_loads_and_its_launch_command_names_itself(path: Path) -> None:
    blueprint = load_blueprint(path)
    assert find_blueprint(path.stem) == path
    assert blueprint.name == path.stem
    assert blueprint.description
    assert parse_blueprint(dump_blueprint(blueprint), where="dump") == blueprint
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert max(map(len, text.splitlines())) <= 120
    command = re.search(r"^#   chrysalis-mlx grow (.+)$", text, re.MULTILINE)
    assert command
    options = command[1].split()
    assert options[options.index("--blueprint") + 1] == path.stem
    assert "--genome" in options
    assert "--model" in options or blueprint.model.source
    for kind in blueprint.export.quantize:
        assert file_type(kind)


@pytest.mark.parametrize("name", sorted(set(SHIPPED) - GENERAL))
def test_what_a_model_is_shown_suits_its_kind(name: str) -> None:
    blueprint = load_blueprint(library()[name])
    mix = blueprint.framing.mix
    assert sum(dataclasses.asdict(mix).values()) == pytest.approx(1)
    answers = name == "smollm2-135m-instruct" or blueprint.match.variant == "instruct"
    assert (mix.chat > 0) is answers
    assert mix.completion > 0
    assert (mix.fim > 0) is (name == "qwen3-0.6b-base")
    assert blueprint.expression.copies == CopiesSection()
    assert blueprint.expression.gates == GatesSection()
    assert "Expressed: live files once" in path_text(name)


def path_text(name: str) -> str:
    return library()[name].read_text(encoding="utf-8")


def test_the_whole_genome_has_every_gate_open() -> None:
    expression = load_blueprint(library()["whole-genome"]).expression
    thresholds = {
        field.name: getattr(expression.gates, field.name)
        for field in dataclasses.fields(expression.gates)
        if field.name not in ("min_characters", "boilerplate_repositories")
    }
    assert set(thresholds.values()) == {None, False}
    assert (expression.include, expression.exclude, expression.gates.min_characters) == (("*",), (), 1)
    copies = expression.copies
    assert (copies.exact, copies.near, copies.backups) == (False, None, "keep")


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
    with pytest.raises(BlueprintError, match=r"no blueprint 'xyz'(.|\n)*shipped: demo, gemma-3-1b, .*whole-genome"):
        find_blueprint("xyz")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_copy_is_the_same_under_its_own_name(name: str, tmp_path: Path) -> None:
    file = tmp_path / "own one.yaml"
    copied = copy_blueprint(name, file)
    assert copied == load_blueprint(file) == dataclasses.replace(load_blueprint(library()[name]), name="own one")
    text = file.read_text(encoding="utf-8")
    changed = [
        (old, new) for old, new in zip(path_text(name).splitlines(), text.splitlines(), strict=True) if old != new
    ]
    assert [new for _, new in changed] == [
        changed[0][0].replace(f"--blueprint {name}", f"--blueprint {file}"),
        "name: own one",
    ]


@pytest.mark.parametrize("stem", ["2024", "true", "a: b", "größe", "it's #1"])
def test_a_name_that_yaml_would_read_otherwise_is_quoted(stem: str, tmp_path: Path) -> None:
    assert copy_blueprint("tiny", tmp_path / f"{stem}.yaml").name == stem
    assert load_blueprint(tmp_path / f"{stem}.yaml").name == stem


@pytest.mark.parametrize("text", ["# only this\ntraining: {steps: 99}", "", "{name: x, training: {steps: 200}}\n"])
def test_a_copy_of_an_own_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text)
    own = load_blueprint(tmp_path / "own.yaml")
    copied = copy_blueprint(str(tmp_path / "own.yaml"), tmp_path / "copy.yaml")
    assert copied == load_blueprint(tmp_path / "copy.yaml") == dataclasses.replace(own, name="copy")
    assert text.startswith("#") == (tmp_path / "copy.yaml").read_text().startswith("#")


def test_a_copy_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("mine")
    with pytest.raises(BlueprintError, match=r"there is a file already(.|\n)*own\.yaml"):
        copy_blueprint("tiny", tmp_path / "own.yaml")
    assert (tmp_path / "own.yaml").read_text() == "mine"
    with pytest.raises(BlueprintError, match="cannot be written"):
        copy_blueprint("tiny", tmp_path / "no" / "own.yaml")


def test_the_blueprint_in_the_readme_is_valid(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    [shown] = [block for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if block.startswith("version:")]
    (tmp_path / "shown.yaml").write_text(shown, encoding="utf-8")
    blueprint = load_blueprint(tmp_path / "shown.yaml")
    assert (blueprint.name, blueprint.framing.mix.chat, blueprint.order.kind) == ("my-notes", 0.25, "annealed")


def test_every_shipped_blueprint_is_in_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert [name for name in library() if f"`{name}`" not in readme] == []
