"""Which files of a run go to a repository of the Hub, and where they lie in it.

    gguf      model-*.gguf, imatrix.gguf, Modelfile, verification.json
    fused     config.json, model.safetensors and the tokenizer, as transformers and mlx-lm read them
    adapter   adapter_config.json and adapter_model.safetensors as PEFT reads them, mlx/ as mlx-lm does, adapter.gguf

The first of these that is sent lies at the root, where every program looks; the others lie in fused/ and adapter/. So
no adapter_config.json stands beside a config.json: transformers would put the adapter on weights that have it already.

Nothing else is ever sent: no text of the corpus, no run.json, which knows the paths of this machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from chrysalis_mlx.errors import ExportError, RunError, UsageError
from chrysalis_mlx.export.lineage.card import CARD
from chrysalis_mlx.export.lineage.lineage import Lineage
from chrysalis_mlx.progress import Progress, silent
from chrysalis_mlx.run import Run, sha256_file

Kind = Literal["gguf", "fused", "adapter"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_MODEL = re.compile(r"export/model-.+\.gguf")
_PAPERS = ("export/Modelfile", "export/verification.json", "export/imatrix.gguf")
_ADAPTER_GGUF = "export/adapter.gguf"
# What names the base in the configuration of an adapter: in a run it may be a path of this machine.
_PEFT_BASE, _MLX_BASE = "base_model_name_or_path", "model"
_FROM = re.compile(r"FROM (.+)")


@dataclass(frozen=True)
class File:
    """One file of a repository: its path there, and where its bytes are, or the bytes themselves."""

    path: str
    content: Path | bytes

    @property
    def bytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def folder_of(kind: Kind, kinds: Sequence[Kind]) -> str:
    """Where the files of a kind lie in a repository that holds these kinds: "" for its root, or "fused/"."""
    return "" if kind == next(known for known in KINDS if known in kinds) else f"{kind}/"


def collect(run: Run, kinds: Sequence[Kind], lineage: Lineage, *, progress: Progress = silent) -> list[File]:
    """The files of these kinds, without the card; every one has the sha256 that its stage recorded.

    Raises:
        RunError: a stage has not finished, a file is not as its stage left it, or the export is of an older adapter.
        ExportError: a GGUF file was not proved.
        UsageError: a full fine-tuning has no adapter.
    """
    chosen = {kind: _CHOSEN[kind](run) for kind in KINDS if kind in kinds}
    _require_unchanged(run, dict(pair for pairs in chosen.values() for pair in pairs.values()), progress)
    found: dict[str, Path | bytes] = {
        folder_of(kind, kinds) + path: run.path(name)
        for kind, pairs in chosen.items()
        for path, (name, _) in pairs.items()
    }
    if "adapter" in kinds:
        found |= _with_public_base(found, folder_of("adapter", kinds), lineage)
    files = [File(path, content) for path, content in found.items()]
    _require_base_of_modelfile(files)
    return files


def is_of_this_adapter(run: Run, stage: str) -> bool:
    """Whether a stage is done, and with the adapter that the run has now."""
    if run.stage(stage).get("status") != "done":
        return False
    inputs = run.stage(stage)["inputs"]
    return all(inputs.get(path) == sha256 for path, sha256 in run.output_hashes("train").items())


_Chosen = dict[str, tuple[str, str]]  # path in its folder of the repository -> path in the run, sha256


def _exported(run: Run) -> dict[str, str]:
    """What the stage `fuse` wrote, proved and of this adapter."""
    outputs = run.output_hashes("fuse")
    if not is_of_this_adapter(run, "fuse"):
        raise RunError(
            "the export is of another adapter than the run has now",
            where=run.path("export"),
            fix=f"make it again: chrysalis-mlx fuse {run.directory}",
        )
    unproved = [entry["file"] for entry in run.stage("fuse")["report"]["gguf"].values() if not entry["verified"]]
    if unproved:
        raise ExportError(
            f"not proved to do what the trained model does: {', '.join(unproved)}",
            where=run.path("export"),
            fix=f"prove them: chrysalis-mlx fuse {run.directory}, without --no-verify",
        )
    return outputs


def _gguf(run: Run) -> _Chosen:
    outputs = _exported(run)
    names = [path for path in outputs if _MODEL.fullmatch(path)] + [path for path in _PAPERS if path in outputs]
    return {name.removeprefix("export/"): (name, outputs[name]) for name in names}


def _fused(run: Run) -> _Chosen:
    outputs = _exported(run)
    names = [path for path in outputs if path.startswith("fused/") and Path(path).name != CARD]
    return {name.removeprefix("fused/"): (name, outputs[name]) for name in names}


def _adapter(run: Run) -> _Chosen:
    trained = run.output_hashes("train")
    if not any(path.startswith("adapters/peft/") for path in trained):
        raise UsageError("a full fine-tuning has no adapter", where=run.directory, fix="push it with --what fused")
    chosen = {}
    for name, sha256 in trained.items():
        if name.startswith("adapters/peft/"):
            chosen[name.removeprefix("adapters/peft/")] = name, sha256
        elif name.startswith("adapters/"):
            chosen["mlx/" + name.removeprefix("adapters/")] = name, sha256
    exported = run.output_hashes("fuse") if is_of_this_adapter(run, "fuse") else {}
    if _ADAPTER_GGUF in exported:
        chosen[Path(_ADAPTER_GGUF).name] = _ADAPTER_GGUF, exported[_ADAPTER_GGUF]
    return chosen


_CHOSEN = {"gguf": _gguf, "fused": _fused, "adapter": _adapter}


def _require_unchanged(run: Run, recorded: Mapping[str, str], progress: Progress) -> None:
    with progress("checking", len(recorded), unit="file") as bar:
        for name, sha256 in recorded.items():
            if sha256_file(run.path(name)) != sha256:
                raise RunError(
                    f"{name} was changed after the run recorded it",
                    where=run.path(name),
                    fix="bring the original back, or make it again with the stage that wrote it",
                )
            bar.update()


def _with_public_base(found: Mapping[str, Path | bytes], folder: str, lineage: Lineage) -> Iterator[tuple[str, bytes]]:
    """The configurations of the adapter, naming the base by its Hub id and commit instead of a path."""
    hub = lineage.base.hub
    of_peft = {_PEFT_BASE: lineage.source, "revision": hub.commit if hub else None}
    named_in = {"adapter_config.json": of_peft, "mlx/adapter_config.json": {_MLX_BASE: lineage.source}}
    for path, named in ((folder + name, named) for name, named in named_in.items()):
        content = found[path]
        assert isinstance(content, Path)
        config: dict[str, Any] = json.loads(content.read_text(encoding="utf-8")) | named
        yield path, (json.dumps(config, indent=2) + "\n").encode()


def _require_base_of_modelfile(files: Sequence[File]) -> None:
    for file in files:
        if file.path == "Modelfile" and isinstance(file.content, Path):
            named = _FROM.match(file.content.read_text(encoding="utf-8"))
            if named is None or named[1].removeprefix("./") not in {other.path for other in files}:
                raise RunError("the Modelfile names a file that is not of this export", where=file.content)
