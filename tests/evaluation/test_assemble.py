"""From answers to evaluation.json, without a model."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chrysalis_mlx.blueprint.schema import EvaluationSection
from chrysalis_mlx.evaluation.assemble import Background, after, changes, narrowed, subject
from chrysalis_mlx.evaluation.copying import Corpus
from chrysalis_mlx.evaluation.measure import Found
from chrysalis_mlx.evaluation.prompts import Prompt
from chrysalis_mlx.evaluation.results import Copying, Evaluation, read_evaluation
from chrysalis_mlx.evaluation.texts import Beginning, Questions, Text
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests.evaluation.engines import segment

SECTION = EvaluationSection(resamples=200)
LEARNED = "The caterpillar doesn't know what it'll become; they're told that we've seen the wings."


def text(number: int, tokens: int, repository: str, path: str, framing: str = "text") -> Text:
    return Text(number, segment(range(tokens)), repository, path, framing)


# Two texts of one document, two documents more, and a text without a target.
QUESTIONS = Questions(
    test=[
        [text(3, 3, "b", "x", "chat"), text(0, 5, "a", "x")],
        [text(1, 2, "a", "x", "chat"), text(2, 4, "a", "y"), text(4, 1, "c", "z")],
    ],
    general=[[Text(0, segment(range(4))), Text(1, segment(range(3)))]],
)
FOUND = Found(
    test={
        0: np.array([-1.0, -2.0, -3.0, -4.0]),
        1: np.array([-5.0]),
        2: np.array([-1.0, -1.0, -1.0]),
        3: np.array([-2.0, -2.5]),
        4: np.array([]),
    },
    general={0: np.array([-1.0, -2.0, -3.0]), 1: np.array([-4.0, -4.0])},
    continuations=[],
    answers=[],
)


@pytest.fixture
def background(tokenizer: Tokenizer) -> Background:
    return Background(SECTION, tokenizer, {"train": Corpus([LEARNED]), "held_out": Corpus(["nothing of the kind"])})


def shifted(found: Found, by: float) -> Found:
    return replace(
        found,
        test={number: values + by for number, values in found.test.items()},
        general={number: values + by for number, values in found.general.items()},
    )


def test_perplexity_is_of_all_targets_and_of_each_part(background: Background) -> None:
    found = subject("base", QUESTIONS, FOUND, background)
    overall = found.test.overall
    assert (overall.targets, overall.documents) == (10, 3)
    assert overall.loss == pytest.approx(22.5 / 10)
    assert overall.perplexity == pytest.approx(math.exp(2.25))
    parts = {name: (score.loss, score.targets, score.documents) for name, score in found.test.repositories.items()}
    assert parts == {"a": (pytest.approx(18 / 8), 8, 2), "b": (pytest.approx(4.5 / 2), 2, 1)}
    parts = {name: (score.loss, score.targets, score.documents) for name, score in found.test.framings.items()}
    assert parts == {"chat": (pytest.approx(9.5 / 3), 3, 2), "text": (pytest.approx(13 / 7), 7, 2)}
    assert found.general is not None
    assert (found.general.loss, found.general.targets, found.general.documents) == (pytest.approx(14 / 5), 5, 2)
    assert found.test.repositories["b"].interval is None
    assert overall.interval is not None
    assert overall.interval.low <= overall.perplexity <= overall.interval.high


def test_the_bootstrap_draws_documents_and_not_their_texts(background: Background) -> None:
    """Texts of one document, one good and one bad: as two documents they would give an interval."""
    one = Questions([[text(0, 3, "a", "x"), text(1, 3, "a", "x")]], [])
    found = Found({0: np.array([-1.0, -1.0]), 1: np.array([-9.0, -9.0])}, {}, [], [])
    assert subject("base", one, found, background).test.overall.interval is None
    two = Questions([[text(0, 3, "a", "x"), text(1, 3, "b", "x")]], [])
    interval = subject("base", two, found, background).test.overall.interval
    assert interval is not None
    assert (interval.low, interval.high) == (pytest.approx(math.exp(1)), pytest.approx(math.exp(9)))


def test_changes_are_paired() -> None:
    told = changes(QUESTIONS, shifted(FOUND, 0.5), FOUND, SECTION)
    assert set(told) == {"test", "general"}
    for change in told.values():  # each document changed by the same: nothing is left to chance
        assert change.ratio == pytest.approx(math.exp(-0.5))
        assert change.interval is not None
        assert change.interval.low == pytest.approx(change.interval.high) == pytest.approx(math.exp(-0.5))
    assert set(changes(replace(QUESTIONS, general=[]), FOUND, FOUND, SECTION)) == {"test"}


def test_what_is_compared_with_a_file_is_what_the_file_was_asked() -> None:
    asked = Questions([[text(0, 50, "a", "x"), text(1, 30, "b", "y")]], [[text(0, 40, "", "")]])
    asked.test[0][0].segment.supervised[:7] = False
    few = asked.for_file(20, 50)
    values = {item.number: -item.targets.astype(float) for item in asked.test[0]}
    whole = Found(values, {0: -asked.general[0][0].targets.astype(float)}, [], [])
    found = narrowed(whole, asked, few)
    for rows, own in ((few.test, found.test), (few.general, found.general)):
        assert {number: (-values).tolist() for number, values in own.items()} == {
            row[0].number: row[0].targets.tolist() for row in rows
        }
    assert sum(map(len, found.test.values())) == 20
    assert changes(few, found, found, SECTION)["test"].ratio == 1


def test_copies_are_told_with_what_was_shown_and_expected(background: Background, tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode(LEARNED)
    other = tokenizer.encode("In 2024 there were 1234567 monarchs counted.")
    begun = [
        Beginning("train", "a", "x", tuple(tokens[:3]), tuple(tokens[3:9])),
        Beginning("train", "a", "y", tuple(other[:3]), tuple(other[3:9])),
        Beginning("held_out", "b", "z", tuple(tokens[:3]), tuple(tokens[3:9])),
    ]
    found = replace(FOUND, continuations=[tokens[3:], tokens[3:6], tokens[3:]])
    told = subject("tuned", replace(QUESTIONS, beginnings=begun), found, background)
    start = tokenizer.decode(tokens[:3])
    first, second, third = told.continuations
    assert (first.source, first.repository, first.path, first.prompt) == ("train", "a", "x", start)
    assert first.prompt + first.text == LEARNED
    assert first.expected == tokenizer.decode(tokens[3:9])
    assert first.copied == len(LEARNED) - len(start)
    assert second.copied == len(tokenizer.decode(tokens[3:6]))
    assert third.copied < 10
    assert told.copying == {"train": Copying(2, 1, first.copied), "held_out": Copying(1, 0, third.copied)}


def test_answers_are_texts(background: Background, tokenizer: Tokenizer) -> None:
    asked = [Prompt("Who?", tuple(tokenizer.encode("Who?")), 9)]
    said = tokenizer.encode(" A larva."), tokenizer.encode(" Größe 🦋")
    told = subject("base", replace(QUESTIONS, prompts=asked), replace(FOUND, answers=[said]), background)
    (answer,) = told.answers
    assert (answer.prompt, answer.greedy, answer.sampled) == ("Who?", " A larva.", " Größe 🦋")


def test_a_space_and_half_a_character_between_prompt_and_answer(tokenizer: Tokenizer, spm_tokenizer: Tokenizer) -> None:
    for model in (tokenizer, spm_tokenizer):
        ids = model.encode("the wings of a larva")
        shown = model.decode(ids)
        for cut in range(1, len(ids)):
            assert model.decode(ids[:cut]) + after(model, ids[:cut], ids[cut:]) == shown
    ids = tokenizer.encode("a🦋b")
    assert after(tokenizer, ids[:2], ids[2:]) == "🦋b"
    assert after(tokenizer, ids[:1], ids[1:2]).startswith("\ufffd")


def test_an_evaluation_is_read_as_it_was_written(background: Background, tmp_path: Path) -> None:
    tuned = replace(subject("tuned", QUESTIONS, FOUND, background), against=changes(QUESTIONS, FOUND, FOUND, SECTION))
    made = Evaluation("mlx", tuned, tuned, {"F16": replace(tuned, file="export/a.gguf")}, tuned.against, {"seed": 0})
    (tmp_path / "evaluation.json").write_text(json.dumps(made.as_dict()))
    assert read_evaluation(tmp_path / "evaluation.json") == made
