"""A run whose model talks without end, made by the real classes in a second: its figures are left out."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import numpy as np

from chrysalis_mlx.adapters.files import save_mlx, save_peft
from chrysalis_mlx.adapters.spec import initialize
from chrysalis_mlx.models.checkpoint import Checkpoint, write_checkpoint
from chrysalis_mlx.models.tokenizer import Tokenizer
from chrysalis_mlx.run import write_json
from chrysalis_mlx.training.stage import ADAPTER_FILES, PEFT_FILES
from chrysalis_mlx.workspace import Origin, Workspace
from tests import tiny
from tests.end_to_end.inputs import write_inputs
from tests.gguf.parity import export

TYPES = ("F32", "Q8_0")
EXPORT = 'export: {quantize: [F32, Q8_0], system: "You are a larva.", messages: ["Hi", "Hello"], context: 300}\n'
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 30, "repetition_penalty": 1.1}
END = 2


def endless_model(directory: Path, **config: object) -> Path:
    """A tiny llama that never ends an answer and speaks in whole characters: the scores of all other tokens are 0."""
    model = tiny.tiny_llama(directory, **{"max_position_embeddings": 1 << 17, **config})
    base = Checkpoint.open(model)
    tensors = {name: base.read(name) for name in base.names}
    tokenizer = Tokenizer.open(model)
    silent = [id for id in range(512) if id <= END or not tokenizer.decode([id]).isprintable()]
    silent += [id for id in range(512) if "\ufffd" in tokenizer.decode([id])]
    tensors["model.embed_tokens.weight"][silent] = 0
    shapes = {name: values.shape for name, values in tensors.items()}
    write_checkpoint(model / "model.safetensors", shapes, tensors.__getitem__)
    return model


def talking_run(folder: Path) -> Path:
    """`folder`/larva: a run with an adapter that changes the model, and GGUFs of F32 and Q8_0."""
    model = endless_model(folder / "model")
    write_json(model / "generation_config.json", {"eos_token_id": END, **SAMPLING})
    genome, blueprint = write_inputs(folder)
    blueprint.write_text("\n".join(line for line in blueprint.read_text().splitlines() if "export:" not in line))
    blueprint.write_text(f"{blueprint.read_text()}\n{EXPORT}")
    workspace = Workspace.create(folder / "larva", Origin(genome, model=str(model), blueprint=str(blueprint)))
    train(workspace)
    return workspace.run.directory


def without_base(larva: Path, folder: Path) -> Path:
    """`folder`/run: a copy of a run whose base model is gone."""
    run = Path(shutil.copytree(larva, folder / "run"))
    record = json.loads((run / "run.json").read_text())
    record["model"]["directory"] = str(folder / "gone")
    write_json(run / "run.json", record)
    return run


def train(workspace: Workspace) -> None:
    """Record a training and an export, with B far from zero."""
    run, spec, model = workspace.run, workspace.adapter_spec(), workspace.model
    arrays = initialize(spec, model.checkpoint(), 0)
    random = np.random.default_rng(3)
    arrays |= {
        name: 0.1 * random.standard_normal(values.shape).astype(np.float32)
        for name, values in arrays.items()
        if name.endswith(".B")
    }
    with run.recording("train", {}) as record:
        save_mlx(run.path("adapters"), spec, arrays, "base", layers=2)
        save_peft(run.path("adapters", "peft"), spec, arrays, "base")
        record["outputs"] = [run.path("adapters", name) for name in (*ADAPTER_FILES, *PEFT_FILES)]
    with run.recording("fuse", {}) as record:
        run.path("export").mkdir()
        write = functools.partial(export, model.path, adapter=(spec, arrays))
        files = {name: write(run.path("export", f"model-{name}.gguf"), name).path for name in TYPES}
        record["report"] = {"gguf": {name: {"file": file.name} for name, file in files.items()}}
        record["outputs"] = list(files.values())
