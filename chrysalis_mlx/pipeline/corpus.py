"""Stage 2: the training texts."""

from __future__ import annotations

from typing import Any

from chrysalis_mlx.corpus.build import corpus_of_data, corpus_of_genome
from chrysalis_mlx.corpus.select.patterns import pattern_rule
from chrysalis_mlx.corpus.write import write_corpus
from chrysalis_mlx.errors import RunError
from chrysalis_mlx.genome.history import History
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import atomic_path
from chrysalis_mlx.workspace import Workspace


def corpus(workspace: Workspace, *, progress: Progress = silent) -> dict[str, Any]:
    """Stage 2: the genome, expressed and framed, or rows of one's own, in corpus/.

    Returns:
        the stage's record; `skipped` tells whether an earlier run had already made it.
    """
    run, blueprint = workspace.run, workspace.blueprint
    inputs = workspace.input_hashes("expression", "framing", "data", "split") | workspace.material
    inputs["row_length"] = str(blueprint.training.row_length)
    if run.is_done("corpus", inputs):
        return run.stage("corpus") | {"skipped": True}
    material = workspace.require_material()
    with run.recording("corpus", inputs) as record, atomic_path(run.path("corpus")) as directory:
        tokenizer = workspace.model.tokenizer
        if workspace.data:
            made = corpus_of_data(material, blueprint, tokenizer, progress=progress)
        else:
            made = corpus_of_genome(material, blueprint, tokenizer, _history(workspace), progress=progress)
        record["report"] = write_corpus(made, directory, tokenizer, progress=progress)
        written = sorted(path.relative_to(directory) for path in directory.rglob("*.json*"))
        record["outputs"] = [run.path("corpus", *name.parts) for name in written]
    return run.stage("corpus") | {"skipped": False}


def _history(workspace: Workspace) -> History | None:
    """The commits of the genome's repositories, where the blueprint wants them, of files that it does not exclude.

    Raises:
        RunError: there are others than when the run began.
    """
    recorded, expression = workspace.material.get("history"), workspace.blueprint.expression
    if recorded is None:
        return None
    history = workspace.history(lambda repository, path: pattern_rule(f"{repository}/{path}", expression)[0])
    if history.fingerprint() != recorded:
        raise RunError(
            "the clones have other commits than when the run began",
            where=workspace.run.directory,
            fix="bring them back (`chrysalis-mlx genome clone`), or begin a new run",
        )
    return history
