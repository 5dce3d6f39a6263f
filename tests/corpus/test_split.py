"""Documents to train, valid and test."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrysalis_mlx.blueprint.schema import SplitSection
from chrysalis_mlx.corpus.contamination import contamination
from chrysalis_mlx.corpus.document import Document, Selected
from chrysalis_mlx.corpus.split import SIDES, split_documents
from chrysalis_mlx.errors import CorpusError
from tests.corpus.select.test_copies import prose


def selected(
    texts: list[str], families: list[int] | None = None, repositories: list[str] | None = None
) -> list[Selected]:
    names = repositories or ["r"] * len(texts)
    return [
        Selected(Document(name, f"{number}.md", text), family, 1.0, 1)
        for number, (text, family, name) in enumerate(zip(texts, families or range(len(texts)), names, strict=True))
    ]


FORTY = selected([prose(number, 30) for number in range(40)])


def on(side: str, sides: list[str]) -> list[int]:
    return [place for place, name in enumerate(sides) if name == side]


def test_backups_are_kept_back_for_want_of_live_documents_only() -> None:
    live = FORTY[:10]
    backups = [replace(item, document=replace(item.document, backup=True)) for item in FORTY[10:]]
    sides = split_documents([*backups, *live], SplitSection(valid=0.05, test=0.05))
    assert set(sides[:30]) == {"train"}
    assert Counter(sides[30:]) == {"train": 6, "valid": 2, "test": 2}
    sides = split_documents([*live[:2], *backups], SplitSection(valid=0.05, test=0.05))
    assert {sides[0], sides[1]} == {"valid", "test"}
    assert Counter(split_documents(backups, SplitSection(valid=0.1, test=0.1)))["test"] == 3


@pytest.mark.parametrize(("clean", "valid", "test"), [(3, 0.02, 0.2), (4, 0.05, 0.45), (5, 0.02, 0.4)])
def test_test_leaves_valid_one_that_was_not_trained_on(clean: int, valid: float, test: float) -> None:
    shared = prose(99, 20)
    texts = [f"{prose(n, 20)} {shared}" for n in range(30)] + [prose(n, 30) for n in range(30, 30 + clean)]
    sides = split_documents(selected(texts), SplitSection(valid=valid, test=test))
    trained = [texts[place] for place in on("train", sides)]
    for side in ("valid", "test"):
        assert contamination(trained, [texts[place] for place in on(side, sides)], 13).share == 0


def test_shares_are_of_documents() -> None:
    assert Counter(split_documents(FORTY, SplitSection(valid=0.1, test=0.2))) == {"train": 28, "valid": 4, "test": 8}


@given(
    st.lists(st.integers(0, 5), min_size=3, max_size=20).filter(lambda families: len(set(families)) >= 3),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.booleans(),
)
def test_no_side_is_empty_and_no_family_divided(families: list[int], valid: float, test: float, short: bool) -> None:
    texts = [f"{'' if short else prose(number, 20)} {number}" for number in range(len(families))]
    sides = split_documents(selected(texts, families), SplitSection(valid=valid, test=test))
    assert set(sides) == set(SIDES)
    assert len(set(zip(families, sides, strict=True))) == len(set(families))


def test_a_side_is_passed_over_by_families_that_do_not_fit() -> None:
    families = [*[0] * 12, *[1] * 10, *range(2, 20)]
    sides = split_documents(selected([prose(n, 30) for n in range(40)], families), SplitSection(valid=0.1, test=0.1))
    assert Counter(sides) == {"train": 32, "valid": 4, "test": 4}
    assert set(sides[:22]) == {"train"}


def test_the_largest_family_always_trains() -> None:
    sides = split_documents(selected([prose(n, 30) for n in range(9)], [0] * 7 + [1, 2]), SplitSection())
    assert set(sides[:7]) == {"train"}
    assert set(sides[7:]) == {"valid", "test"}


def test_what_shares_a_passage_trains() -> None:
    passage = prose(100, 13)
    texts = [prose(n, 40) if n % 2 else f"{prose(n, 20)} {passage} {prose(-n, 20)}" for n in range(1, 41)]
    for seed in range(5):
        sides = split_documents(selected(texts), SplitSection(valid=0.2, test=0.2, seed=seed))
        assert {place % 2 for place in on("test", sides) + on("valid", sides)} == {0}
        train = [texts[place] for place in on("train", sides)]
        assert contamination(train, [texts[place] for place in on("test", sides)], 13).share == 0.0


def test_twelve_words_in_common_are_no_passage() -> None:
    passage = prose(100, 12)
    texts = [f"{prose(n, 20)} {passage} {prose(-n, 20)}" for n in range(1, 11)] + [prose(50, 12)] * 10
    sides = split_documents(selected(texts), SplitSection(valid=0.2, test=0.2))
    assert set(on("test", sides) + on("valid", sides)) <= set(range(10))


def test_what_shares_least_is_kept_back_when_all_share() -> None:
    passage = prose(100, 13)
    texts = [f"{passage} {prose(n, 20 * (n + 1))}" for n in range(10)]
    sides = split_documents(selected(texts), SplitSection(valid=0.1, test=0.1))
    assert on("test", sides) == [9]
    assert on("valid", sides) == [8]


def test_short_documents_are_kept_back_only_for_want_of_others() -> None:
    texts = [f"note {n}" for n in range(30)] + [prose(n, 30) for n in range(10)]
    sides = split_documents(selected(texts), SplitSection(valid=0.1, test=0.1))
    assert set(sides[:30]) == {"train"}
    assert set(split_documents(selected(texts[:9]), SplitSection(valid=0.1, test=0.1))) == {"train", "valid", "test"}


def test_too_few_separable_documents_are_shared_out() -> None:
    texts = [f"note {n}" for n in range(30)] + [prose(n, 30) for n in range(10)]
    sides = split_documents(selected(texts), SplitSection(valid=0.1, test=0.3))
    assert set(sides[:30]) == {"train"}
    assert Counter(sides[30:]) == {"valid": 2, "test": 8}


def test_the_order_plays_no_part_where_families_span_repositories() -> None:
    one = [Selected(Document(f"r{n % 5}", f"{n}.md", prose(n, 40)), n // 2, 1.0, 40) for n in range(60)]
    assert split_documents(one[::-1], SplitSection()) == split_documents(one, SplitSection())[::-1]


def test_paths_that_headers_repeat_count() -> None:
    deep = "/".join(f"folder{n}" for n in range(13))
    documents = [Selected(Document("r", f"{deep}/{n}.md", prose(n, 30)), n, 1.0, 1) for n in range(10)]
    documents += [Selected(Document("r", f"{n}.md", prose(n, 30)), n, 1.0, 1) for n in range(10, 20)]
    sides = split_documents(documents, SplitSection(valid=0.2, test=0.2))
    assert set(sides[:10]) == {"train"}


def test_every_repository_is_kept_back_in_proportion() -> None:
    repositories = [f"r{place % 4}" for place in range(160)] + ["large"] * 160
    items = selected([prose(n, 20) for n in range(320)], repositories=repositories)
    sides = split_documents(items, SplitSection(valid=0.1, test=0.1))
    for side in ("valid", "test"):
        counts = Counter(items[place].document.repository for place in on(side, sides))
        assert counts == pytest.approx({"r0": 4, "r1": 4, "r2": 4, "r3": 4, "large": 16}, abs=1)


def test_the_order_of_the_documents_plays_no_part() -> None:
    forwards = split_documents(FORTY, SplitSection())
    assert split_documents(FORTY[::-1], SplitSection()) == forwards[::-1]


def test_a_new_document_moves_few_others() -> None:
    section = SplitSection(valid=0.1, test=0.1)
    before = split_documents(FORTY[:39], section)
    after = split_documents(FORTY, section)[:39]
    assert sum(one != other for one, other in zip(before, after, strict=True)) <= 2


def test_another_seed_is_another_split() -> None:
    assert split_documents(FORTY, SplitSection(seed=1)) == split_documents(FORTY, SplitSection(seed=1))
    assert split_documents(FORTY, SplitSection(seed=1)) != split_documents(FORTY, SplitSection(seed=2))


@pytest.mark.parametrize("families", [[], [0], [0, 1], [0, 0, 1, 1]])
def test_fewer_than_three_families_are_an_error(families: list[int]) -> None:
    message = rf"{len(families)} document\(s\) in {len(set(families))} (.|\n)*loosen the blueprint"
    with pytest.raises(CorpusError, match=message):
        split_documents(selected([prose(n) for n in range(len(families))], families), SplitSection())
