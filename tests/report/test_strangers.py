"""Runs of strangers: records that are not as this version writes them, and texts that pretend to be something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from matplotlib.figure import Figure

from chrysalis_mlx.cli import main
from chrysalis_mlx.errors import RunError
from chrysalis_mlx.report.compare import comparison_page
from chrysalis_mlx.report.facts import read_facts
from chrysalis_mlx.report.page import report_page
from chrysalis_mlx.report.svg import placeholder, plot_of
from chrysalis_mlx.report.words import visible
from chrysalis_mlx.run import Run, write_json

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def change(run: Run, file: str, path: str, value: Any) -> None:
    """Put a value into one of the run's records, at a dotted path."""
    record = json.loads(run.path(file).read_text())
    *parents, last = path.split(".")
    place = record
    for name in parents:
        place = place[int(name) if isinstance(place, list) else name]
    place[int(last) if isinstance(place, list) else last] = value
    write_json(run.path(file), record)


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("run.json", "stages.fuse.seconds", "<b>"),
        ("run.json", "stages.corpus.report.framings.text.tokens", {"a": 1}),
        ("evaluation.json", "base.answers.0.sampled", [1]),
        ("evaluation.json", "base.continuations.0.copied", None),
        ("export/verification.json", "gguf.F16.perplexity", {}),
        ("export/verification.json", "gguf.F16.failures", [10**30]),
    ],
)
def test_a_figure_that_is_none_is_an_error_of_one_sentence(run: Run, file: str, path: str, value: Any) -> None:
    change(run, file, path, value)
    facts = read_facts(run.directory)
    with pytest.raises(RunError, match="a record is damaged, or of another version, and cannot be shown: "):
        report_page(facts)


def test_it_is_told_without_a_traceback_and_no_page_is_written(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    change(run, "export/verification.json", "gguf.F16.bytes", [])
    assert main(["report", str(run.directory)]) == 1
    err = capfd.readouterr().err
    assert err.startswith("error: a record is damaged")
    assert "Traceback" not in err
    assert not run.path("report.html").exists()
    with pytest.raises(RunError, match="cannot be shown"):
        comparison_page([read_facts(run.directory)] * 2)


@pytest.mark.parametrize(("path", "value"), [("stages", True), ("stages.eval.inputs", 1.5), ("stages.train", [1])])
def test_a_run_json_of_another_form_is_damaged(run: Run, path: str, value: Any) -> None:
    change(run, "run.json", path, value)
    with pytest.raises(RunError, match=r"^run\.json is damaged\n  where: .*run\.json: \w+Error"):
        read_facts(run.directory)


def test_a_record_nested_without_end_is_told(run: Run) -> None:
    run.path("evaluation.json").write_text("[" * 200_000)
    [problem] = read_facts(run.directory).problems
    assert problem.startswith("evaluation.json cannot be read (RecursionError")


@pytest.mark.parametrize("sign", ["\u200b", "\u2060", "\u00ad", "\ufeff", "\u206a", "\ufff9", "\U000e0041", "\u202e"])
def test_nothing_hides_in_a_text(sign: str) -> None:
    assert visible(f"a{sign}b") == "a" + sign.encode("unicode_escape").decode() + "b"


def test_letters_are_joined_as_their_script_has_it() -> None:
    for text in ("\u06cc\u200c\u0647", "\U0001f469\u200d\U0001f52c", "e\u0301", "\u2764\ufe0f"):
        assert visible(text) == text


def test_a_name_that_looks_like_a_placeholder_stays_itself() -> None:
    drawing = Figure(figsize=(2, 2))
    for place in range(2):
        drawing.text(0, place, placeholder(place))
    plot = plot_of(drawing, "key", "Title", "Told.", [placeholder(1), "<second>"])
    assert (plot.svg.count(placeholder(1)), plot.svg.count("&lt;second&gt;")) == (1, 1)


def test_a_token_in_the_address_of_a_repository_is_not_shown(run: Run) -> None:
    for location in ("https://ada:tok3n@h.org/r", "https://tok3n@h.org/r", "https://h.org/r?token=tok3n"):
        change(run, "genome.json", "repositories.0.kind", "remote")
        change(run, "genome.json", "repositories.0.location", location)
        facts = read_facts(run.directory)
        shown = report_page(facts) + json.dumps(facts.as_dict())
        assert "h.org/r" in shown
        assert "tok3n" not in shown


def test_a_browser_holds_a_page_to_its_policy_even_from_a_disk(browser: Browser, grown: Path, tmp_path: Path) -> None:
    """Were a text ever let through unescaped, its script would still not run, and nothing be loaded or sent."""
    attack = (
        "<script>alert(1)</script><img src=x onerror=alert(2)><img src=https://evil.example/x>"
        "<a id=link href='javascript:alert(3)'>x</a><iframe src='data:text/html,<script>alert(4)</script>'></iframe>"
        "<form action=https://evil.example><button id=send>x</button></form>"
        "<link rel=stylesheet href=https://evil.example/x.css><object data=https://evil.example/x></object>"
    )
    text = report_page(read_facts(grown / "run"))
    file = tmp_path / "page.html"
    file.write_text(text.replace("<header>", f"<header>{attack}", 1), encoding="utf-8")
    page = browser.new_context().new_page()
    dialogs: list[str] = []
    asked: list[str] = []
    refused: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: refused.append(request.url if request.failure == "csp" else ""))
    page.goto(file.as_uri())
    for name in ("link", "send"):
        page.evaluate(f"setTimeout(() => document.getElementById('{name}').click(), 0)")
    page.wait_for_timeout(300)
    assert (dialogs, page.url) == ([], file.as_uri())
    assert set(asked) - set(refused) == {file.as_uri()}
    assert "https://evil.example/x.css" in refused
    page.context.close()
