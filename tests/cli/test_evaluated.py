"""What `eval` prints: one table of all subjects, and where the training changed most."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from chrysalis_mlx.cli.evaluated import show_evaluation
from chrysalis_mlx.evaluation.results import Answer, Change, Copying, Evaluation, Interval, Score, Subject, Texts


def score(perplexity: float, documents: int = 3) -> Score:
    interval = Interval(perplexity * 0.9, perplexity * 1.1) if documents > 1 else None
    return Score(perplexity, math.log(perplexity) if perplexity else -math.inf, 4321, documents, interval)


def subject(name: str, perplexity: float, repositories: Mapping[str, float] | None = None) -> Subject:
    return Subject(
        name,
        Texts(score(perplexity), {key: score(value, 1) for key, value in (repositories or {}).items()}),
        score(2 * perplexity),
        {"train": Copying(16, 3, 70), "held_out": Copying(15, 0, 9)},
        answers=(Answer("?", "a", "b"),),
    )


def lines(evaluation: Evaluation, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    show_evaluation(evaluation)
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_every_subject_has_a_line_with_its_change(capsys: pytest.CaptureFixture[str]) -> None:
    file = subject("Q4_K_M", 11)
    against = {"test": Change(1.02, Interval(1.01, 1.03)), "general": Change(1.5)}
    changes = {"test": Change(0.5, Interval(0.4, 0.6)), "general": Change(1.25, Interval(1.2, 1.3))}
    told = lines(
        Evaluation(
            "mlx",
            subject("base", 20),
            subject("tuned", 10),
            {"Q4_K_M": Subject(file.name, file.test, copying=file.copying, against=against)},
            changes,
        ),
        capsys,
    )
    assert "base 20 [18, 22] 40 3/16 0/15" in told
    assert "tuned 10 [9, 11] 0.5 [0.4, 0.6] 20 3/16 0/15" in told
    assert "Q4_K_M 11 [9.9, 12.1] 1.02 [1.01, 1.03] 3/16 0/15" in told
    assert "test: 4,321 tokens of 3 documents; ratio: tuned over base; in brackets: 95 %" in told
    assert "files: 4,321 of these tokens; ratio: over tuned on the very same" in told
    assert "forgetting: general English at 1.25 times the base's [1.2, 1.3]" in told
    assert "copies: 50 characters and more verbatim from train, and from held-out texts" in told
    assert told[-1] == "answers before and after, continuations and all figures: evaluation.json"


def test_what_was_not_asked_for_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    base, tuned = (
        Subject(name, Texts(score(value, 1), {"a": score(value)})) for name, value in (("base", 2), ("tuned", 1))
    )
    told = lines(Evaluation("mlx", base, tuned, changes={"test": Change(0.5)}), capsys)
    assert [line for line in told if line and "─" not in line] == [
        "model test perplexity ratio general copies",
        "base 2",
        "tuned 1 0.5",
        "test: 4,321 tokens of 1 document; ratio: tuned over base; in brackets: 95 %",
    ]


def test_the_largest_change_comes_first_and_a_long_list_is_folded(capsys: pytest.CaptureFixture[str]) -> None:
    base = {f"r{n}": 100.0 for n in range(12)}
    tuned = {f"r{n}": 100.0 - n for n in range(12)} | {"r1": 150.0, "r2": 50.0}
    told = lines(Evaluation("mlx", subject("base", 9, base), subject("tuned", 9, tuned)), capsys)
    shown = [line.split() for line in told if line.startswith("r") and line[1:2].isdigit()]
    assert [row[0] for row in shown] == ["r2", "r1", "r11", "r10", "r9", "r8", "r7", "r6", "r5", "r4"]
    assert shown[0] == ["r2", "100", "50", "0.5", "4,321"]
    assert "and 2 more, see evaluation.json" in told


def test_figures_without_end_and_names_that_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    base, tuned = ({"a": 5.0, "\x1b[31mred[bold]": 5.0, "z": 0.0} for _ in range(2))
    tuned |= {"\x1b[31mred[bold]": math.inf}
    base |= {"z": 1e12}
    told = lines(Evaluation("mlx", subject("base", 123456, base), subject("tuned", math.inf, tuned)), capsys)
    assert [line for line in told if line.startswith("\\x1b")] == ["\\x1b[31mred[bold] 5 inf inf 4,321"]
    assert [line for line in told if line.startswith("z ")] == ["z 1e+12 0 0 4,321"]
    assert any(line.startswith("base 123,456 [111,110, 135,802]") for line in told)
    assert any(line.startswith("tuned inf [inf, inf]") for line in told)
