"""What each stage tells people when it is done."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chrysalis_mlx.cli.output import out, print_json, say, table
from chrysalis_mlx.run import Run

if TYPE_CHECKING:
    from chrysalis_mlx.library.results import Stage
    from chrysalis_mlx.library.run import Run as LibraryRun


def show_stage(name: str, run: Run, record: Mapping[str, Any]) -> None:
    """Print one stage's report, and what the user was told while it ran."""
    if record["status"] == "paused":
        done = f"paused after {record['seconds']:.1f} s; run the same command again to go on"
    else:
        done = "done before, skipped" if record.get("skipped") else f"done in {record['seconds']:.1f} s"
    out().print(f"[bold]{name}[/bold]: {done}")
    say(*(f"note: {note}" for note in record.get("notes", ())))
    _REPORTS[name](run, record["report"])


def tell(run: LibraryRun, stage: Stage, as_json: bool) -> None:
    """Print what a command that runs one stage has to say."""
    if as_json:
        print_json({"run": run.directory, "stage": stage.name, **stage.record})
    else:
        show_stage(stage.name, run.record, stage.record)


def _corpus(run: Run, report: dict[str, Any]) -> None:
    from chrysalis_mlx.corpus.data.report import told
    from chrysalis_mlx.corpus.write import read_account

    what = "rows" if "data" in run.record else "files"
    blueprint = run.record["blueprint"]
    if blueprint["reason"] != "asked for":
        say(f"the blueprint is {blueprint['name']}: {blueprint['reason']}")
    out().print(f"{report['expressed']:,} of {report['considered']:,} {what} are expressed; see corpus/expression.json")
    if report["left_out"]:
        out().print(table("left out by", f">{what}", rows=report["left_out"].items()))
    sides = [
        (side, *(report[figure][side] for figure in ("documents", "rows", "tokens", "supervised")))
        for side in report["rows"]
    ]
    out().print(table("side", ">documents", ">rows", ">tokens", ">learned", rows=sides))
    shares = {side: found["share"] for side, found in report["contamination"].items()}
    ngram = report["contamination"]["test"]["ngram"]
    say(
        f"{report['cut']:,} texts were cut into several rows",
        f"share {ngram} words in a row with what is trained on: "
        + ", ".join(f"{share:.1%} of {side}" for side, share in shares.items()),
    )
    if "data" in run.record:
        say(*told(read_account(run.path("corpus", "expression.json"))["data"]))


def _train(run: Run, report: dict[str, Any]) -> None:
    out().print(
        f"backend {report['backend']} on {report['device']}, base in {report['dtype']}: "
        f"{run.record['backend']['reason']}",
        markup=False,
    )
    total = run.stage("train")["steps"]
    steps = f"{report['steps']} of {total}" if report["steps"] < total else f"{total}"
    resumed = f", resumed at step {report['resumed_at']}" if report["resumed_at"] else ""
    rollbacks = f", {report['rollbacks']} rollbacks" if report["rollbacks"] else ""
    out().print(
        f"{steps} steps{resumed}{rollbacks}, {report['adapter_parameters']:,} adapter parameters, "
        f"{report['rows']:,} rows filled to {report['row_fill']:.1%}"
    )
    speed = report["targets"] / report["seconds"] if report["seconds"] else 0.0
    out().print(
        f"loss: train {report['train_loss']:.4f}, valid {report['valid_loss']:.4f} nats per token; "
        f"{speed:.0f} tokens/s, peak memory {report['peak_memory'] / 2**30:.2f} GiB"
    )
    if report["stopped_early"]:
        say("stopped early: the validations were no longer better than the best one")
    if not report["paused"]:
        best = f"valid {report['best_loss']:.4f}"
        which = "the last and best" if report["best_step"] == report["steps"] else "the best"
        say(f"adapters/ is of step {report['best_step']}, {which}: {best}")


def _eval(run: Run, report: dict[str, Any]) -> None:
    from chrysalis_mlx.cli.evaluated import show_evaluation
    from chrysalis_mlx.evaluation.results import read_evaluation

    show_evaluation(read_evaluation(run.path("evaluation.json")))


def show_export(report: Mapping[str, Any]) -> None:
    """Print what an export wrote."""
    rows = [_row(entry) for entry in report["gguf"].values()]
    heads = (">size", ">bits", ">ids", ">KL", ">ppl", ">top-1")  # fits into 80 columns
    out().print(table("export/", *heads, rows=rows))
    fused, imatrix = report["fused"], report["imatrix"]
    if fused:
        difference = f"logits within {fused['max_difference']:.1e} of the trained model's"
        out().print(f"fused/ in {fused['dtype']}: {difference}")
    if imatrix:
        out().print(f"importance matrix: {imatrix['file']}, of {', '.join(imatrix['datasets'])}", markup=False)
    if adapter := report.get("adapter"):
        say(f"adapter alone: {adapter}")
    say(*(f"note: {note}" for note in report.get("notes", ())))


def show_next(export: Path, run: Path | None = None) -> None:
    """Print the commands that lead on from an export, of a run where one is named; each can be pasted."""
    make = f"ollama create NAME -f {shlex.quote(str(export / 'Modelfile'))}"
    lead = [f"chrysalis-mlx {name} {shlex.quote(str(run))}" for name in ("report", "chat")] if run else []
    first, *more = [*lead, make]
    say(f"next: {first}", *(f"      {line}" for line in more))


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    size = (entry["file"], f"{entry['bytes'] / 1e6:.1f} MB", f"{entry['bits_per_weight']:.2f}")
    if "kl" not in entry:
        return (*size, "", "", "", "not verified")
    return (
        *size,
        f"{entry['lines_equal']}/{entry['lines']}",
        f"{entry['kl']:.1e}",
        f"{entry['perplexity']:.4g}",
        f"{entry['top1']:.1%}",
    )


_REPORTS: dict[str, Callable[[Run, dict[str, Any]], None]] = {
    "corpus": _corpus,
    "train": _train,
    "eval": _eval,
    "fuse": lambda _, report: show_export(report),
}
