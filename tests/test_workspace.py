"""A run opened with its blueprint and its model; what its commands refuse is in end_to_end/test_bad_input.py."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest

from chrysalis_mlx.blueprint.load import load_blueprint, to_dict
from chrysalis_mlx.blueprint.match import best_blueprint
from chrysalis_mlx.errors import BlueprintError, GenomeError, RunError, UsageError
from chrysalis_mlx.genome.text.format import genome_identity
from chrysalis_mlx.machine import memory_bytes
from chrysalis_mlx.models.facts import resolve_facts
from chrysalis_mlx.run import sha256_file, sha256_json
from chrysalis_mlx.workspace import Origin, Workspace
from tests import tiny
from tests.end_to_end.inputs import write_inputs


@pytest.fixture
def given(tmp_path: Path) -> tuple[Path, Path]:
    return write_inputs(tmp_path / "inputs")


@pytest.fixture
def workspace(tmp_path: Path, given: tuple[Path, Path], tiny_model: Path) -> Workspace:
    return Workspace.create(tmp_path / "run", Origin(genome=given[0], model=str(tiny_model), blueprint=str(given[1])))


def test_a_run_holds_its_resolved_blueprint(workspace: Workspace, given: tuple[Path, Path], tiny_model: Path) -> None:
    asked = load_blueprint(given[1])
    assert asked.model.source is None
    resolved = load_blueprint(workspace.run.path("blueprint.yaml"))
    assert resolved == workspace.blueprint
    assert resolved == dataclasses.replace(asked, model=dataclasses.replace(asked.model, source=str(tiny_model)))
    record = json.loads(workspace.run.path("run.json").read_text())
    assert record["blueprint"] == {
        "name": "e2e",
        "reason": "asked for",
        "sha256": sha256_json(to_dict(resolved), in_order=True),
    }
    assert record["model"]["files"] == workspace.model.hashes()
    assert (
        workspace.run.path("blueprint.yaml").read_text().startswith(f"# The blueprint '{given[1]}' with every default")
    )


def test_genome_json_is_the_lineage_of_every_file(workspace: Workspace, given: tuple[Path, Path]) -> None:
    lineage = json.loads(workspace.run.path("genome.json").read_text())
    assert (lineage["genome"]["files"], lineage["genome"]["sha256"]) == (14, genome_identity(given[0]).sha256)
    docs, logs = lineage["repositories"]
    assert (docs["name"], len(docs["files"])) == ("docs", 13)
    noise = b"noise\n" * 99
    record = {"path": "a.log", "sha256": hashlib.sha256(noise).hexdigest(), "bytes": len(noise), "blob": None}
    assert (logs["name"], logs["commit"], logs["files"]) == ("logs", None, [record])
    assert workspace.require_material() == workspace.genome == given[0]


def test_it_opens_as_it_was_made(workspace: Workspace) -> None:
    opened = Workspace.open(workspace.run.directory)
    assert (opened.blueprint, opened.model, opened.run.record) == (
        workspace.blueprint,
        workspace.model,
        workspace.run.record,
    )
    assert Workspace.ensure(workspace.run.directory).blueprint == workspace.blueprint


def test_the_adapter_is_the_blueprints_on_this_model(workspace: Workspace) -> None:
    spec = workspace.adapter_spec()
    assert (spec.kind, spec.rank, spec.layer_indices, len(spec.modules)) == ("lora", 4, [0, 1], 14)
    assert {module.scale for module in spec.modules.values()} == {2.0}


def test_a_stage_depends_on_the_model_and_its_own_sections_only(
    workspace: Workspace, tmp_path: Path, given: tuple[Path, Path], tiny_model: Path
) -> None:
    changed = tmp_path / "changed.yaml"
    changed.write_text(given[1].read_text().replace("rank: 4", "rank: 2"))
    other = Workspace.create(tmp_path / "other", Origin(genome=given[0], model=str(tiny_model), blueprint=str(changed)))
    assert other.input_hashes("split", "export") == workspace.input_hashes("split", "export")
    assert other.input_hashes("adapter") != workspace.input_hashes("adapter")
    assert workspace.input_hashes("split").keys() == {"model", "blueprint.split"}


def test_of_weights_the_order_counts(tmp_path: Path, given: tuple[Path, Path], tiny_model: Path) -> None:
    text = given[1].read_text().replace("expression: {", "expression: {weights: {docs: 3, '*': 1}, ")
    given[1].write_text(text)
    origin = Origin(genome=given[0], model=str(tiny_model), blueprint=str(given[1]))
    begun = Workspace.create(tmp_path / "run", origin)
    assert Workspace.ensure(tmp_path / "run", origin).blueprint == begun.blueprint
    given[1].write_text(text.replace("docs: 3, '*': 1", "'*': 1, docs: 3"))
    with pytest.raises(RunError, match="begun with another blueprint"):
        Workspace.ensure(tmp_path / "run", origin)
    other = Workspace.create(tmp_path / "other", origin)
    assert other.input_hashes("expression") != begun.input_hashes("expression")


def test_an_empty_directory_is_good_enough(tmp_path: Path, given: tuple[Path, Path], tiny_model: Path) -> None:
    (tmp_path / "empty").mkdir()
    begun = Workspace.ensure(
        tmp_path / "empty", Origin(genome=given[0], model=str(tiny_model), blueprint=str(given[1]))
    )
    assert begun.run.stage("corpus") == {}


def test_what_is_missing_for_a_new_run_is_a_usage_error(
    tmp_path: Path, given: tuple[Path, Path], tiny_model: Path
) -> None:
    for genome, data in ((None, None), (given[0], given[0])):
        asked = Origin(genome=genome, data=data, model=str(tiny_model), blueprint=str(given[1]))
        with pytest.raises(UsageError, match="a genome or from data of your own, one of them"):
            Workspace.ensure(tmp_path / "new", asked)
    with pytest.raises(UsageError, match="a new run needs a model or a blueprint that names one"):
        Workspace.ensure(tmp_path / "new", Origin(genome=given[0]))
    with pytest.raises(UsageError, match="no model is named"):
        Workspace.ensure(tmp_path / "new", Origin(genome=given[0], blueprint=str(given[1])))
    assert not (tmp_path / "new").exists()


def test_nothing_is_written_for_input_that_cannot_be_used(
    tmp_path: Path, given: tuple[Path, Path], tiny_model: Path
) -> None:
    given[0].write_text(given[0].read_text().removesuffix("<|repo_end|>\n\n"))
    with pytest.raises(GenomeError, match=r"it ends before the <\|repo_end\|>"):
        Workspace.create(tmp_path / "new", Origin(genome=given[0], model=str(tiny_model), blueprint=str(given[1])))
    assert not (tmp_path / "new").exists()


def test_the_genome_may_move_but_not_change(workspace: Workspace, given: tuple[Path, Path]) -> None:
    moved = given[0].rename(given[0].with_name("moved.txt"))
    assert Workspace.ensure(workspace.run.directory, Origin(genome=moved)).blueprint == workspace.blueprint
    with pytest.raises(GenomeError, match="the genome cannot be read"):
        workspace.require_material()
    given[0].write_text(moved.read_text() + "\n")
    with pytest.raises(RunError, match="the genome was changed after the run began"):
        workspace.require_material()


def test_rows_of_ones_own_are_the_material(tmp_path: Path, given: tuple[Path, Path], tiny_model: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"text": "one"}\n')
    origin = Origin(data=data, model=str(tiny_model), blueprint=str(given[1]))
    workspace = Workspace.create(tmp_path / "run", origin)
    assert workspace.data == workspace.require_material() == data
    assert workspace.material == {"data": sha256_file(data)}
    assert "genome" not in workspace.run.record
    assert not workspace.run.path("genome.json").exists()
    assert Workspace.ensure(workspace.run.directory, origin).material == workspace.material
    workspace.run.record["stages"]["corpus"] = {"status": "done"}
    workspace.run.save()
    with pytest.raises(RunError, match="this run was begun with another genome"):
        Workspace.ensure(workspace.run.directory, Origin(genome=given[0]))
    data.write_text('{"text": "two"}\n')
    with pytest.raises(RunError, match="this run was begun with other data"):
        Workspace.ensure(workspace.run.directory, origin)
    with pytest.raises(RunError, match="the data were changed after the run began"):
        workspace.require_material()


def test_a_run_of_which_nothing_is_done_begins_again_from_other_material(
    tmp_path: Path, given: tuple[Path, Path], tiny_model: Path
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"txt": "one"}\n')
    origin = Origin(data=data, model=str(tiny_model), blueprint=str(given[1]))
    failed = Workspace.create(tmp_path / "run", origin)
    failed.run.record["stages"]["corpus"] = {"status": "failed"}
    failed.run.save()
    data.write_text('{"text": "one"}\n')
    mended = Workspace.ensure(tmp_path / "run", origin)
    assert mended.material == {"data": sha256_file(data)}
    assert mended.run.record["stages"] == {}
    of_genome = Workspace.ensure(tmp_path / "run", dataclasses.replace(origin, data=None, genome=given[0]))
    assert of_genome.material == {"genome": genome_identity(given[0]).sha256}
    assert of_genome.run.path("genome.json").exists()
    again = Workspace.ensure(tmp_path / "run", Origin(data=data, blueprint=str(given[1])))
    assert (again.model, again.run.path("genome.json").exists()) == (mended.model, False)
    # What is wrong leaves the run as it was.
    given[1].write_text("nonsense: 1\n")
    with pytest.raises(BlueprintError):
        Workspace.ensure(tmp_path / "run", dataclasses.replace(origin, data=None, genome=given[0]))
    assert Workspace.open(tmp_path / "run").material == again.material


def test_a_path_that_is_not_utf8_is_recorded_and_found_again(
    tmp_path: Path, given: tuple[Path, Path], tiny_model: Path
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/by\xfftes"))
    try:
        folder.mkdir()
    except OSError:  # macOS has UTF-8 names alone
        folder = tmp_path / "bytes"
        folder.mkdir()
    (folder / "rows.jsonl").write_text('{"text": "one"}\n')
    origin = Origin(data=folder, model=str(tiny_model), blueprint=str(given[1]))
    Workspace.create(tmp_path / "run", origin)
    assert Workspace.ensure(tmp_path / "run", origin).require_material() == folder


def test_a_directory_of_rows_is_all_its_files(tmp_path: Path, given: tuple[Path, Path], tiny_model: Path) -> None:
    data = tmp_path / "rows"
    data.mkdir()
    for side in ("train", "valid"):
        (data / f"{side}.jsonl").write_text('{"text": "one"}\n')
    workspace = Workspace.create(tmp_path / "run", Origin(data=data, model=str(tiny_model), blueprint=str(given[1])))
    assert workspace.require_material() == data
    (data / "valid.jsonl").rename(data / "test.jsonl")
    with pytest.raises(RunError, match="the data were changed after the run began"):
        workspace.require_material()


def test_commits_are_material_only_where_the_mix_wants_them(
    tmp_path: Path, workspace: Workspace, given: tuple[Path, Path], tiny_model: Path
) -> None:
    assert workspace.material.keys() == {"genome"}
    given[1].write_text(given[1].read_text() + "framing: {mix: {text: 1, history: 1}}\n")
    origin = Origin(genome=given[0], folder=tmp_path, model=str(tiny_model), blueprint=str(given[1]))
    wanting = Workspace.create(tmp_path / "wanting", origin)
    assert wanting.material.keys() == {"genome", "history"}
    history = wanting.history(lambda repository, path: True)
    assert history.fingerprint() == wanting.material["history"]
    assert (list(history), [account.commits for account in history.accounts]) == ([], [0, 0])
    assert wanting.run.record["genome"]["folder"] == str(tmp_path)


def test_without_a_blueprint_the_record_says_why_it_is_this_one(tmp_path: Path, given: tuple[Path, Path]) -> None:
    model = tiny.tiny_llama(tmp_path / "model", max_position_embeddings=4096)
    workspace = Workspace.create(tmp_path / "run", Origin(genome=given[0], model=str(model)))
    match = best_blueprint(resolve_facts(str(model)), memory_bytes())
    asked = load_blueprint(match.path)
    assert workspace.blueprint == dataclasses.replace(asked, model=dataclasses.replace(asked.model, source=str(model)))
    assert workspace.run.record["blueprint"]["reason"] == "; ".join(match.reasons) != ""
    # Named or not, it is the same blueprint.
    assert Workspace.ensure(tmp_path / "run", Origin(blueprint=match.name)).blueprint == workspace.blueprint


def test_a_revision_belongs_to_the_model_that_the_blueprint_names(
    tmp_path: Path, given: tuple[Path, Path], tiny_model: Path
) -> None:
    for named, kept in (("", "v1"), (f"source: {tiny_model}, ", "v1"), ("source: owner/other, ", None)):
        text = f"name: r\nmodel: {{{named}revision: v1}}\n" + given[1].read_text().split("\n", 1)[1]
        (tmp_path / "blueprint.yaml").write_text(text)
        origin = Origin(given[0], model=str(tiny_model), blueprint=str(tmp_path / "blueprint.yaml"))
        run = tmp_path / f"run{len(named)}"
        assert Workspace.create(run, origin).blueprint.model.revision == kept
        assert Workspace.ensure(run, origin).blueprint.model.revision == kept
