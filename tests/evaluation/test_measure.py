"""A subject is asked piece by piece, and stopped anywhere it goes on there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from chrysalis_mlx.evaluation.journal import Journal
from chrysalis_mlx.evaluation.measure import Found, Opened, ask
from chrysalis_mlx.evaluation.predictors import EnginePredictor, Predictor
from chrysalis_mlx.evaluation.prompts import Prompt
from chrysalis_mlx.evaluation.texts import Beginning, Questions, Text
from chrysalis_mlx.progress import Bar
from tests.evaluation.engines import BigramEngine, random_table, segment

V = 12
QUESTIONS = Questions(
    test=[
        [Text(2, segment([1, 2, 3])), Text(0, segment([4, 5, 6, 7], 2))],
        [Text(1, segment([8, 9]))],
        [Text(5, segment([3]))],
    ],
    general=[[Text(0, segment([9, 8, 7]))]],
    beginnings=[Beginning("train", "a", f"{n}", (n, n + 1), ()) for n in range(10)],
    prompts=[Prompt("a", (1,), 4), Prompt("b", (2,), 4)],
)
# Every piece of work, in order, with the tokens that it reads, or writes at most.
READS = {"test 0": 3 + 4 + 2, "test 2": 1, "general 0": 3}
WRITES = {"continuations 0": 8 * 3, "continuations 8": 2 * 3, "answers 0": 2 * 4, "answers 1": 2 * 4}
WORKS = [*READS, *WRITES]


class StoppedError(Exception):
    """The machine went away."""


def asked(
    file: Path, stops_after: int | None = None, seen: dict[str, list[int]] | None = None
) -> tuple[Found, BigramEngine, list[str]]:
    """Ask; `seen` gets of each progress bar how much there is in all, how much was done before, and each advance."""
    engine, opened = BigramEngine(random_table(V)), []
    pieces = 0

    @contextmanager
    def open_it() -> Iterator[Predictor]:
        opened.append("open")
        yield EnginePredictor(engine, 16, (), temperature=1.0, seed=0)  # type: ignore[arg-type]
        opened.append("closed")

    class Stops:
        def __init__(self, told: list[int]) -> None:
            self.told = told

        def update(self, advance: int = 1, **fields: object) -> None:
            nonlocal pieces
            pieces += 1
            self.told.append(advance)
            if pieces == stops_after:
                raise StoppedError

    @contextmanager
    def bar(description: str, total: int, *, completed: int = 0, unit: str = "") -> Iterator[Bar]:
        assert unit == "token"
        told = [total, completed]
        (seen if seen is not None else {})[description] = told
        yield Stops(told)

    opens: Opened = open_it
    journal = Journal(file, "k")
    found = ask(
        QUESTIONS, opens, journal, rows_together=2, texts_together=8, limit=3, description="base model", progress=bar
    )
    return found, engine, opened


def equal(found: Found, other: Found) -> bool:
    return all(
        own.keys() == others.keys() and all(np.array_equal(own[number], others[number]) for number in own)
        for own, others in ((found.test, other.test), (found.general, other.general))
    ) and (found.continuations, found.answers) == (other.continuations, other.answers)


def test_every_question_is_answered(tmp_path: Path) -> None:
    found, engine, opened = asked(tmp_path / "base.jsonl")
    assert {number: len(values) for number, values in found.test.items()} == {2: 2, 0: 2, 1: 1, 5: 0}
    np.testing.assert_allclose(found.test[0], [engine.log_p[5, 6], engine.log_p[6, 7]], rtol=1e-6)
    np.testing.assert_allclose(found.general[0], [engine.log_p[9, 8], engine.log_p[8, 7]], rtol=1e-6)
    follows = engine.log_p.argmax(axis=1).tolist()
    assert [tokens[0] for tokens in found.continuations] == [follows[n + 1] for n in range(10)]
    assert {len(tokens) for tokens in found.continuations} == {3}
    assert [greedy[0] for greedy, _ in found.answers] == [follows[1], follows[2]]
    assert opened == ["open", "closed"]
    assert engine.batches == 3  # two rows together


@pytest.mark.parametrize("stops_after", range(1, len(WORKS) + 1))
def test_stopped_anywhere_it_asks_only_what_is_left_and_ends_the_same(tmp_path: Path, stops_after: int) -> None:
    whole, _, _ = asked(tmp_path / "whole.jsonl")
    with pytest.raises(StoppedError):
        asked(tmp_path / "stopped.jsonl", stops_after)
    journal = Journal(tmp_path / "stopped.jsonl", "k")
    assert [work for work in WORKS if work in journal] == WORKS[:stops_after]
    seen: dict[str, list[int]] = {}
    found, engine, opened = asked(tmp_path / "stopped.jsonl", seen=seen)
    assert equal(found, whole)
    assert (tmp_path / "stopped.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert engine.batches == len([work for work in WORKS[stops_after:] if work.split()[0] in ("test", "general")])
    assert opened == ([] if stops_after == len(WORKS) else ["open", "closed"])  # no model is loaded for nothing
    expected = {}
    for verb, works in (("reads", READS), ("writes", WRITES)):
        left = [tokens for name, tokens in works.items() if name in WORKS[stops_after:]]
        if left:
            expected[f"base model {verb}"] = [sum(works.values()), sum(works.values()) - sum(left), *left]
    assert seen == expected


def test_numbers_come_back_exactly_as_the_engine_gave_them(tmp_path: Path) -> None:
    found, engine, _ = asked(tmp_path / "base.jsonl")
    expected = engine.log_p[[1, 2], [2, 3]].astype(np.float32)
    assert found.test[2].astype(np.float32).tolist() == expected.tolist()
