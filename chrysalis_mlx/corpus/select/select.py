"""Which documents are expressed, in what order and how often.

One rule after another decides: patterns, gates, backups, framing, copies, boilerplate, budget. What one has left out
the next does not see, but that backups are compared with all live files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from chrysalis_mlx.blueprint.schema import BudgetSection, ExpressionSection, GatesSection
from chrysalis_mlx.corpus.document import Document, Selected, Verdict
from chrysalis_mlx.corpus.select.backups import judge_backups
from chrysalis_mlx.corpus.select.boilerplate import BoilerplateIndex
from chrysalis_mlx.corpus.select.budget import Cost, within_budget
from chrysalis_mlx.corpus.select.copies import SHINGLE, find_copies
from chrysalis_mlx.corpus.select.gates import judge
from chrysalis_mlx.corpus.select.patterns import curriculum_key, pattern_rule, weight_of
from chrysalis_mlx.corpus.select.words import Hashes, ngram_hashes
from chrysalis_mlx.progress import Progress, silent

CountTokens = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True)
class Selection:
    """What became of every document.

    Attributes:
        verdicts: of each document, in the order given.
        selected: what is expressed, in curriculum order.
    """

    verdicts: list[Verdict]
    selected: list[Selected]


def select(
    documents: Sequence[Document],
    section: ExpressionSection,
    count_tokens: CountTokens,
    *,
    can_be_framed: Callable[[Document], bool] = lambda document: True,
    progress: Progress = silent,
) -> Selection:
    """Judge every document, in genome order.

    Args:
        count_tokens: the tokens of each of many texts.
        can_be_framed: whether rows can be made of a document.
    """
    verdicts = [_by_name(document, section) for document in documents]
    verdicts = _through_gates(verdicts, section, progress)
    left = [number for number, verdict in enumerate(verdicts) if verdict.expressed]
    left.sort(key=lambda number: curriculum_key(documents[number], section))
    for number, finding in judge_backups(documents, left, section.copies).items():
        verdicts[number] = _out(verdicts[number], finding.rule, finding.score)
    order = [number for number in left if verdicts[number].expressed]
    for number in order:
        if not can_be_framed(documents[number]):
            verdicts[number] = _out(verdicts[number], "no framing", None)
    order = [number for number in order if verdicts[number].expressed]
    families = _without_copies(verdicts, order, section, progress)
    _without_boilerplate(verdicts, families, section.gates)
    return _within_budget(verdicts, families, section, count_tokens)


def _by_name(document: Document, section: ExpressionSection) -> Verdict:
    expressed, rule = pattern_rule(document.name, section)
    if expressed and weight_of(document.repository, section) == 0:
        expressed, rule = False, "weight 0"
    return Verdict(document, expressed, rule)


def _through_gates(verdicts: Sequence[Verdict], section: ExpressionSection, progress: Progress) -> list[Verdict]:
    judged = []
    with progress("judging", len(verdicts), unit="document") as bar:
        for verdict in verdicts:
            if verdict.expressed:
                scores, closed = judge(verdict.document, section.gates)
                verdict = replace(verdict, scores=scores)
                if closed:
                    verdict = _out(verdict, f"gate: {closed[0]}", closed[1])
            judged.append(verdict)
            bar.update()
    return judged


def _without_copies(
    verdicts: list[Verdict], order: Sequence[int], section: ExpressionSection, progress: Progress
) -> dict[int, int]:
    """Leave copies out of `verdicts`; the families of the others, by number of the document, in curriculum order."""
    documents = [verdicts[number].document for number in order]
    shingles: dict[bool, list[Hashes]] = {True: [], False: []}
    with progress("comparing", 2 * len(documents), unit="document") as bar:
        for numbers, of_all in shingles.items():
            for hashes in ngram_hashes((document.text for document in documents), SHINGLE, numbers=numbers):
                of_all.append(hashes)
                bar.update()
    found = find_copies(documents, shingles[True], shingles[False], section.copies)
    families = {}
    for place, number in enumerate(order):
        verdicts[number] = replace(verdicts[number], family=found.families[place])
        if finding := found.out.get(place):
            verdicts[number] = _out(verdicts[number], finding.rule, finding.score)
        else:
            families[number] = found.families[place]
    return families


def _without_boilerplate(verdicts: list[Verdict], families: dict[int, int], section: GatesSection) -> None:
    """Leave out what several repositories have. Of its copies one has stayed, which is no boilerplate by itself."""
    if section.max_boilerplate is None:
        return
    documents = [verdicts[number].document for number in families]
    index = BoilerplateIndex(documents, section.boilerplate_repositories)
    for number, document in zip(list(families), documents, strict=True):
        verdict = verdicts[number]
        share = round(index.share(document.text), 4)
        verdicts[number] = verdict = replace(verdict, scores={**verdict.scores, "boilerplate": share})
        if share > section.max_boilerplate:
            verdicts[number] = _out(verdict, "gate: boilerplate", share)
            del families[number]


def _within_budget(
    verdicts: list[Verdict], families: dict[int, int], section: ExpressionSection, count_tokens: CountTokens
) -> Selection:
    documents = [verdicts[number].document for number in families]
    weights = [weight_of(document.repository, section) for document in documents]
    tokens = count_tokens([document.text for document in documents])
    rules: list[str | None] = [None] * len(documents)
    if section.budget != BudgetSection():
        costs = [
            Cost(document.repository, count, weight, document.backup)
            for document, count, weight in zip(documents, tokens, weights, strict=True)
        ]
        rules = within_budget(costs, section.budget)
    selected = []
    for number, weight, count, rule in zip(families, weights, tokens, rules, strict=True):
        if rule is None:
            selected.append(Selected(verdicts[number].document, families[number], weight, count))
        else:
            verdicts[number] = _out(verdicts[number], rule, float(count))
    return Selection(verdicts, selected)


def _out(verdict: Verdict, rule: str, score: float | None) -> Verdict:
    return replace(verdict, expressed=False, rule=rule, score=None if score is None else round(score, 4))
