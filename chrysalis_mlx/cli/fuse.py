"""chrysalis-mlx fuse: from a model and its adapter to files that run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from chrysalis_mlx.cli.options import ModelName, RunPath, TypeName, backend_option
from chrysalis_mlx.cli.output import json_option, out, print_json, progress, say
from chrysalis_mlx.errors import UsageError

_PATH = click.Path(exists=True, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(name="fuse")
@click.argument("run", type=RunPath(), required=False)
@click.option(
    "--model", type=ModelName(), help="Instead of a run: a Hugging Face or MLX directory, a Hub id or a .gguf file."
)
@click.option("--adapter", type=_PATH, help="With --model: a directory that mlx-lm or PEFT wrote.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="With --model: where to write.")
@click.option(
    "--quantize",
    type=TypeName(),
    multiple=True,
    metavar="TYPE",
    help="GGUF type (F16, Q8_0, Q4_K_M ...); more than once.",
)
@click.option("--imatrix", type=_FILE, help="An importance matrix to use instead of one of the training text.")
@click.option("--text", type=_FILE, help="With --model: text to collect the importance matrix from.")
@click.option("--no-verify", is_flag=True, help="Do not prove the files; they keep the name *.unverified.gguf.")
@click.option("--adapter-only", is_flag=True, help="Write the adapter alone, for llama.cpp, Ollama, PEFT and mlx-lm.")
@click.option("--ollama", metavar="NAME", help="Make the model in Ollama, where it is installed.")
@backend_option
@json_option
def command(
    run: Path | None,
    model: str | None,
    adapter: Path | None,
    output: Path | None,
    quantize: tuple[str, ...],
    imatrix: Path | None,
    text: Path | None,
    no_verify: bool,
    adapter_only: bool,
    ollama: str | None,
    backend: str,
    as_json: bool,
) -> None:
    """Merge an adapter into the exact base: safetensors in fused/, and GGUF files in export/, proved in llama.cpp.

    Of a RUN, or of any --model with an --adapter that mlx-lm or PEFT trained; without one the model is converted.

    \b
    Examples:
      chrysalis-mlx fuse runs/qwen3 --quantize Q4_K_M --ollama larva
      chrysalis-mlx fuse --model Qwen/Qwen3-0.6B --adapter adapters -o out --quantize F16 --quantize Q4_K_M
    """
    from chrysalis_mlx.cli.reports import show_next
    from chrysalis_mlx.export.ollama.modelfile import check_name, create

    _require_one(run, {"--model": model, "--adapter": adapter, "--output": output, "--text": text})
    if ollama and adapter_only:
        raise UsageError("an adapter alone is no model in Ollama", fix="leave out one of --ollama and --adapter-only")
    if ollama:
        check_name(ollama)
    show = partial(progress, quiet=as_json)
    options: dict[str, Any] = {"imatrix": imatrix, "verify": not no_verify, "progress": show}
    if adapter_only:
        found, export = _alone(run, model, adapter, output, as_json)
    elif run is not None:
        found, export = _of_run(run, quantize, backend, options, as_json), run / "export"
    else:
        assert model is not None
        assert output is not None
        found, export = _of_model(model, adapter, output, quantize, backend, {**options, "text": text}, as_json)
    if ollama:
        found["ollama"] = create(ollama, export, progress=show)
    if as_json:
        print_json(found)
    elif ollama:
        told = f"made in Ollama: {ollama}"
        if found["ollama"]:
            told = f"Ollama is not installed here; run: {found['ollama']}"
        out().print(told, markup=False, soft_wrap=True)
    elif not adapter_only:
        show_next(export, run)


def _require_one(run: Path | None, named: Mapping[str, object]) -> None:
    if run is not None and (given := [option for option, value in named.items() if value is not None]):
        raise UsageError(f"{', '.join(given)} cannot stand beside a run", fix="name a run, or --model and --output")
    if run is None and (named["--model"] is None or named["--output"] is None):
        raise UsageError(
            "nothing to export is named", fix="name a run, or --model M -o DIR, with --adapter A or without"
        )


def _of_run(
    run: Path, quantize: tuple[str, ...], backend: str, options: Mapping[str, Any], as_json: bool
) -> dict[str, Any]:
    from chrysalis_mlx.cli.reports import show_stage
    from chrysalis_mlx.library.run import open_run

    opened = open_run(run)
    stage = opened.fuse(quantize, backend, **options)
    if not as_json:
        show_stage("fuse", opened.record, stage.record)
    return {"run": run, "stage": "fuse", **stage.record}


def _of_model(
    model: str,
    adapter: Path | None,
    output: Path,
    quantize: tuple[str, ...],
    backend: str,
    options: Mapping[str, Any],
    as_json: bool,
) -> tuple[dict[str, Any], Path]:
    from chrysalis_mlx.cli.reports import show_export
    from chrysalis_mlx.conversion import Given, convert

    report = convert(Given(model, adapter), output, quantize, backend, **options)
    if not as_json:
        show_export(report)
    return {"model": model, "adapter": adapter, "output": output, "report": report}, output / "export"


def _alone(
    run: Path | None, model: str | None, adapter: Path | None, output: Path | None, as_json: bool
) -> tuple[dict[str, Any], Path]:
    from chrysalis_mlx.conversion import Given, convert_adapter, write_alone
    from chrysalis_mlx.pipeline.inputs import tuned_of
    from chrysalis_mlx.workspace import Workspace

    if run is not None:
        directory = run / "export"
        written = write_alone(tuned_of(Workspace.open(run)), directory)
    else:
        assert model is not None
        assert output is not None
        directory = output
        written = convert_adapter(Given(model, adapter), directory)
    if not as_json:
        for path in written.written.values():
            out().print(str(path), markup=False, soft_wrap=True)
        say(*(f"no {form}: {reason}" for form, reason in written.left_out.items()))
    return {"directory": directory, "written": written.written, "left_out": written.left_out}, directory
