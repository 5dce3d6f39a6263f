"""A finished run of a tiny model with everything that can be pushed, made in a second; its GGUF files are stand-ins."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from chrysalis_mlx.export.lineage.lineage import Lineage, metadata
from chrysalis_mlx.run import Run, write_json
from tests.export.finished import ENTRIES, finish, write

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GGUF = ["model-F16.gguf", "model-Q4_K_M.gguf", "Modelfile", "verification.json", "imatrix.gguf"]
PEFT = ["adapter_config.json", "adapter_model.safetensors"]
MLX = ["mlx/adapter_config.json", "mlx/adapters.safetensors"]
FUSED = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def finish_all(folder: Path, tiny_model: Path) -> Run:
    """`folder`/run: trained, evaluated, and exported as F16 and Q4_K_M, all of it proved."""
    run = finish(folder, tiny_model)
    export_all(run, tiny_model)
    return run


def export_all(run: Run, model: Path, *, verified: bool = True) -> None:
    """Record the stage `fuse` again, with fused/ and all that lies in export/."""
    export, fused, keys = run.path("export"), run.path("fused"), metadata(Lineage.of_run(run))
    suffix = ".gguf" if verified else ".unverified.gguf"
    entries: dict[str, Any] = {
        name: ENTRIES[name] | {"file": f"model-{name}{suffix}", "verified": verified, "failures": []}
        for name in ("F16", "Q4_K_M")
    }
    with run.recording("fuse", run.output_hashes("train")) as record:
        for folder in (export, fused):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        for name in FUSED:
            shutil.copyfile(model / name, fused / name)
        files = [write(export / entry["file"], keys | {"test.type": name}) for name, entry in entries.items()]
        files += [write(export / name, {"general.type": kind}) for name, kind in _OTHERS.items()]
        (export / "Modelfile").write_text(f"FROM ./model-Q4_K_M{suffix}\nPARAMETER num_ctx 512\n")
        (export / "README.md").write_text("the card of the export, whose links lead into the run\n")
        write_json(export / "verification.json", {"fused": {}, "imatrix": None, "gguf": entries})
        record["report"] = {"gguf": entries}
        papers = [export / name for name in ("Modelfile", "README.md", "verification.json")]
        record["outputs"] = [*sorted(fused.iterdir()), *files, *papers]


_OTHERS = {"imatrix.gguf": "imatrix", "adapter.gguf": "adapter"}


def based_on_hub(run: Run) -> Run:
    """The same run, as if its base had been downloaded from the Hub."""
    model = Path(run.record["model"]["directory"])
    cached = run.directory.parent / "hub" / "models--org--Tiny-1M" / "snapshots" / COMMIT
    shutil.copytree(model, cached)
    run.record["model"] |= {"source": "org/Tiny-1M", "directory": str(cached)}
    run.save()
    return run


def with_location(run: Run, *locations: str) -> Run:
    """The same run, whose genome was built from repositories at these addresses."""
    import json

    path = run.path("genome.json")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for repository, location in zip(manifest["repositories"], locations, strict=False):
        repository |= {"kind": "remote", "location": location}
    write_json(path, manifest)
    return run
