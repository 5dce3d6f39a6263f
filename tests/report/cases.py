"""Invented evaluations and trainings, with figures that can be told apart on a page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from chrysalis_mlx.evaluation.results import (
    Answer,
    Change,
    Continuation,
    Copying,
    Evaluation,
    Interval,
    Score,
    Subject,
    Texts,
)

# What a stranger may call a file or a model may write: what ends elements, quotes, turns text around, or is no text.
HOSTILE = (
    "<script>alert(1)</script>",
    "</svg></style><img src=x onerror=alert(2)>",
    "\"'`&amp;{{ 7 * 7 }}$x^2$\\",
    "abc\u202egnp.exe\u2066\x1b[31m\x00\ud800",
    "w" * 10_000,
    "日本語" * 40 + " \u05e9\u05dc\u05d5\u05dd",
)


def score(perplexity: float, spread: float | None = 0.04, *, targets: int = 4799, documents: int = 31) -> Score:
    """A score whose interval is `spread` of it to either side."""
    ends = None if spread is None else Interval(perplexity * (1 - spread), perplexity * (1 + spread))
    return Score(perplexity, math.log(perplexity), targets, documents, ends)


def texts(perplexity: float) -> Texts:
    """Two repositories and two framings."""
    repositories = {
        "docs": score(perplexity * 0.9, targets=3000, documents=20),
        "no_te|s": score(perplexity * 1.3, None, targets=1799, documents=1),
    }
    framings = {"text": score(perplexity * 1.1, targets=4000), "chat": score(perplexity * 0.7, targets=799)}
    return Texts(score(perplexity), repositories, framings)


def continuations(copied: int, text: str = "and the wings dry in the sun.") -> tuple[Continuation, ...]:
    """One of a training text, that copies, and one of a held-out text."""
    expected = "and then the wings dry in the morning sun, slowly."
    return (
        Continuation("train", "docs", "a.md", "The butterfly leaves its shell", text, expected, copied),
        Continuation("held_out", "docs", "b.md", "A caterpillar eats", text, "leaves, and little else.", 11),
    )


def subject(name: str, test: float, general: float, copies: int, answer: str) -> Subject:
    """One model, that copies so many of 16 continuations."""
    return Subject(
        name,
        texts(test),
        score(general, 0.02, targets=2047, documents=12),
        {"train": Copying(16, copies, 40 + 44 * copies), "held_out": Copying(16, 0, 31)},
        continuations(40 + 44 * copies),
        (Answer("Who are you?", answer, f"{answer} Truly."), Answer("What is a wing?", "A wing.", "Two wings.")),
        {"test": Change(1.02, Interval(1.0, 1.04)), "general": Change(1.01, Interval(0.99, 1.03))}
        if copies < 0
        else {},
        f"export/model-{name}.gguf" if name not in ("base", "tuned") else None,
    )


def evaluation(answer: str = "I am a butterfly.") -> Evaluation:
    """Test perplexity fell from 17.2 to 14.7, that of general text rose from 12.1 to 12.4, one text is copied."""
    file = subject("Q4_K_M", 15.1, 12.6, 1, answer)
    against = {"test": Change(1.027, Interval(1.011, 1.043)), "general": Change(1.016, Interval(0.997, 1.035))}
    return Evaluation(
        backend="mlx",
        base=subject("base", 17.2, 12.1, 0, "I am a helpful assistant."),
        tuned=subject("tuned", 14.7, 12.4, 1, answer),
        files={"Q4_K_M": dataclasses.replace(file, against=against, file="export/model-Q4_K_M.gguf")},
        changes={"test": Change(0.8547, Interval(0.832, 0.877)), "general": Change(1.0248, Interval(0.998, 1.052))},
        settings={"temperature": 0.7, "seed": 3},
    )


def events(steps: int, *, every: int = 20, **changed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A training whose loss falls from 4 towards 2.

    Args:
        every: steps between validations.
        changed: `step_N` to what is different in the event of that step.
    """
    found: list[dict[str, Any]] = [{"step": 0, "kind": "valid", "loss": 4.0}]
    for step in range(1, steps + 1):
        loss = 2 + 2 * math.exp(-3 * step / steps) + 0.15 * math.sin(12.9898 * step)
        event = {
            "step": step, "kind": "train", "loss": loss, "learning_rate": 1e-3 * (1 - (step - 1) / steps),
            "grad_norm": 0.5, "tokens": 100, "seconds": 0.5, "tokens_per_second": 200 + 20 * math.sin(step),
            "peak_memory": 2**30 + 2**20 * min(step, 50),
        }  # fmt: skip
        found.append({**event, **changed.get(f"step_{step}", {})})
        if step % every == 0 or step == steps:
            found.append({"step": step, "kind": "valid", "loss": 2.1 + 1.8 * math.exp(-3 * step / steps)})
    return found
