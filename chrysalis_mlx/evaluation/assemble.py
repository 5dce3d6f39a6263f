"""The content of evaluation.json, computed from what the subjects answered; nothing here asks a model."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from chrysalis_mlx.blueprint.schema import EvaluationSection
from chrysalis_mlx.evaluation.bootstrap import Sums, change, score
from chrysalis_mlx.evaluation.copying import Corpus, copying
from chrysalis_mlx.evaluation.measure import Found, LogProbs
from chrysalis_mlx.evaluation.results import Answer, Change, Continuation, Score, Subject, Texts
from chrysalis_mlx.evaluation.texts import Questions, Text
from chrysalis_mlx.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Background:
    """What answers are judged by.

    Attributes:
        section: the blueprint's.
        tokenizer: the model's.
        corpora: source of a beginning -> the texts that a continuation may have been copied from.
    """

    section: EvaluationSection
    tokenizer: Tokenizer
    corpora: Mapping[str, Corpus]


def subject(
    name: str, questions: Questions, found: Found, background: Background, *, file: str | None = None
) -> Subject:
    """What was measured of one subject.

    Args:
        questions: what it was asked.
        file: of a GGUF: its path in the run.
    """
    continuations = tuple(_continuations(questions, found, background))
    tokenizer = background.tokenizer
    answers = tuple(
        Answer(prompt.text, *(after(tokenizer, prompt.tokens, tokens) for tokens in pair))
        for prompt, pair in zip(questions.prompts, found.answers, strict=True)
    )
    general = _score(_flat(questions.general), found.general, background.section) if questions.general else None
    return Subject(
        name,
        _texts(_flat(questions.test), found.test, background.section),
        general,
        copying(continuations),
        continuations,
        answers,
        file=file,
    )


def changes(questions: Questions, found: Found, other: Found, section: EvaluationSection) -> dict[str, Change]:
    """A subject against another on the very tokens that both were asked, `test` and, where there is one, `general`.

    Args:
        questions: what the subject was asked; the other may have been asked more of each text (`narrowed`).
    """
    settings = {"seed": section.seed, "resamples": section.resamples}
    test, general = _flat(questions.test), _flat(questions.general)
    told = {"test": change(_sums(test, found.test), _sums(test, other.test), **settings)}
    if general:
        told["general"] = change(_sums(general, found.general), _sums(general, other.general), **settings)
    return told


def narrowed(found: Found, asked: Questions, to: Questions) -> Found:
    """What a subject answered, on the tokens alone that another was asked.

    Args:
        asked: what the subject was asked.
        to: what the other was asked: of the same texts fewer tokens.
    """

    def narrow(values: LogProbs, all_texts: Iterable[Text], few: Iterable[Text]) -> LogProbs:
        whole = {text.number: text.targets for text in all_texts}
        return {text.number: values[text.number][np.searchsorted(whole[text.number], text.targets)] for text in few}

    return replace(
        found,
        test=narrow(found.test, _flat(asked.test), _flat(to.test)),
        general=narrow(found.general, _flat(asked.general), _flat(to.general)),
    )


def after(tokenizer: Tokenizer, before: Sequence[int], tokens: Sequence[int]) -> str:
    """The text of tokens that follow others: a space between both belongs to it, and no half character to either."""
    start = tokenizer.decode(before).rstrip("\ufffd")
    return tokenizer.decode([*before, *tokens])[len(start) :]


def _flat(rows: Sequence[Sequence[Text]]) -> list[Text]:
    return list(itertools.chain.from_iterable(rows))


def _texts(texts: Sequence[Text], found: LogProbs, section: EvaluationSection) -> Texts:
    def by(names: Sequence[str]) -> dict[str, Score]:
        groups: dict[str, list[Text]] = {}
        for name, text in zip(names, texts, strict=True):
            if len(text.targets):
                groups.setdefault(name, []).append(text)
        return {name: _score(groups[name], found, section) for name in sorted(groups)}

    return Texts(
        _score(texts, found, section),
        by([text.repository for text in texts]),
        by([text.framing for text in texts]),
    )


def _score(texts: Sequence[Text], found: LogProbs, section: EvaluationSection) -> Score:
    return score(_sums(texts, found), seed=section.seed, resamples=section.resamples)


def _sums(texts: Sequence[Text], found: LogProbs) -> Sums:
    """(D, 2), by document: sum of −log p and number of targets. A passage of the general text is a document."""
    sums: dict[tuple[str, str, int], list[float]] = {}
    for text in sorted(texts, key=lambda text: text.number):
        values = found[text.number]
        if len(values):
            document = (text.repository, text.path, -1 if text.path else text.number)
            own = sums.setdefault(document, [0.0, 0.0])
            own[0] -= float(values.sum())
            own[1] += len(values)
    return np.array(list(sums.values()), np.float64).reshape(len(sums), 2)


def _continuations(questions: Questions, found: Found, background: Background) -> Iterable[Continuation]:
    tokenizer = background.tokenizer
    for beginning, tokens in zip(questions.beginnings, found.continuations, strict=True):
        prompt, text = tokenizer.decode(beginning.tokens), after(tokenizer, beginning.tokens, tokens)
        yield Continuation(
            beginning.source,
            beginning.repository,
            beginning.path,
            prompt,
            text,
            after(tokenizer, beginning.tokens, beginning.expected),
            background.corpora[beginning.source].longest(text, prompt=prompt),
        )
