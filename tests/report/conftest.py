"""Runs for a report to be made of, and a browser to look at it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chrysalis_mlx.report.facts import Facts, read_facts
from chrysalis_mlx.run import Run, write_json, write_text
from tests.export.finished import finish, moved
from tests.report import cases

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The folder of a finished run with an evaluation and 60 steps; nobody writes to it."""
    folder = tmp_path_factory.mktemp("grown")
    run = finish(folder, tiny_model)
    write_json(run.path("evaluation.json"), cases.evaluation().as_dict())
    write_metrics(run, cases.events(60))
    verification = json.loads(run.path("export/verification.json").read_text()) | {
        "fused": {"dtype": "float32", "max_difference": 2.5474e-06},
        "imatrix": {"file": "imatrix.gguf", "datasets": ["wings: corpus/train.jsonl"]},
        "adapter": "adapter.gguf",
        "notes": ["the model has no chat template"],
    }
    write_json(run.path("export/verification.json"), verification)
    run.record["stages"]["eval"]["notes"] = ["one test text was too short to be continued"]
    run.record["stages"]["train"] |= {"steps": 60, "report": run.stage("train")["report"] | {"best_step": 40}}
    run.save()
    return folder


@pytest.fixture
def run(grown: Path, tmp_path: Path) -> Run:
    """A finished run of one's own."""
    return moved(grown, tmp_path / "grown")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory, grown: Path) -> Facts:
    """Of a run in which every text is a stranger's, of 400 repositories and 100,000 steps; its export failed."""
    run = moved(grown, tmp_path_factory.mktemp("hostile") / "grown")
    bad = cases.HOSTILE
    names = [f"{bad[number % len(bad)]} {number}" for number in range(400)]
    report = run.stage("corpus")["report"]
    report["repositories"] = {
        name: {"files": 3, "expressed": 2, "tokens": 10 + place} for place, name in enumerate(names)
    }
    report["left_out"] = {f"exclude: {text}": 7 for text in bad}
    report["framings"] = {text: {"rows": 1, "tokens": 2, "supervised": 1} for text in bad}
    account = json.loads(run.path("corpus/expression.json").read_text())
    account["files"] = [
        {"repository": text, "path": text, "expressed": False, "rule": f"exclude: {text}", "scores": {}} for text in bad
    ]
    write_json(run.path("corpus/expression.json"), account)
    manifest = json.loads(run.path("genome.json").read_text())
    repository = manifest["repositories"][0]
    manifest["repositories"] = [
        repository
        | {"name": name, "kind": "remote", "location": f"https://example.org/{name}", "licence": bad[place % 6]}
        for place, name in enumerate(names)
    ]
    manifest["failed"] = [{"name": text, "location": text, "reason": text} for text in bad]
    write_json(run.path("genome.json"), manifest)
    write_json(run.path("evaluation.json"), _hostile_evaluation())
    strange = {f"step_{step}": {"loss": value} for step, value in ((10, float("nan")), (11, float("inf")), (777, 99.0))}
    events = cases.events(100_000, every=1000, **strange)
    events.append({"step": 60, "kind": "rollback", "reason": bad[1], "undone": 63, "rate_factor": 0.5})
    write_metrics(run, events)
    verification = json.loads(run.path("export/verification.json").read_text())
    for entry in verification["gguf"].values():
        entry |= {"file": bad[0], "failures": list(bad), "verified": False}
    write_json(run.path("export/verification.json"), verification)
    run.record["blueprint"]["name"] = bad[1]
    run.record["stages"]["train"]["notes"] = list(bad)
    run.record["stages"]["fuse"] |= {"status": "failed", "reason": "\n".join(bad)}
    run.save()
    return read_facts(run.directory)


def _hostile_evaluation() -> dict[str, Any]:
    def strange(value: Any, place: int = 0) -> Any:
        """Every text but a name of the record itself."""
        if isinstance(value, dict):
            return {
                key: item if key in ("name", "source") else strange(item, place + number)
                for number, (key, item) in enumerate(value.items())
            }
        if isinstance(value, (list, tuple)):
            return [strange(item, place + number) for number, item in enumerate(value)]
        return cases.HOSTILE[place % len(cases.HOSTILE)] if isinstance(value, str) else value

    plain: dict[str, Any] = strange(cases.evaluation().as_dict())
    for subject in (plain["base"], plain["tuned"]):
        subject["test"]["repositories"] = dict.fromkeys(cases.HOSTILE, subject["test"]["overall"])
    return plain


def write_metrics(run: Run, events: list[dict[str, Any]]) -> None:
    """Put these events into metrics.jsonl."""
    write_text(run.path("training", "metrics.jsonl"), "".join(json.dumps(event) + "\n" for event in events))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine: nobody looks at the page")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: nobody looks at the page")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=list(SWITCHES))
        yield opened
        opened.close()
