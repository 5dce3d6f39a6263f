"""Exact copies, near copies and families."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from string import ascii_lowercase

import pytest
import yaml

from chrysalis_mlx.blueprint.schema import CopiesSection
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.select.copies import SHINGLE, Copies, Finding, find_copies
from chrysalis_mlx.corpus.select.similar import jaccard
from chrysalis_mlx.corpus.select.words import ngram_hashes

DEFAULT = CopiesSection()


def prose(seed: int, count: int = 60) -> str:
    draw = random.Random(seed)
    return " ".join("".join(draw.choices(ascii_lowercase, k=8)) for _ in range(count))


def copies_of(texts: list[str], section: CopiesSection = DEFAULT) -> Copies:
    documents = [Document("r", f"{number}.md", text) for number, text in enumerate(texts)]
    numberless = list(ngram_hashes(texts, SHINGLE, numbers=False))
    return find_copies(documents, list(ngram_hashes(texts, SHINGLE)), numberless, section)


def test_exact_copies_name_the_first() -> None:
    found = copies_of([prose(1), prose(2), f"{prose(1)}  \n\n", prose(1)])
    assert found.out == {2: Finding("copy of r/0.md", 1.0), 3: Finding("copy of r/0.md", 1.0)}
    assert found.families == [0, 1, 0, 0]
    assert found.comparisons == 0


def test_near_copies_carry_their_exact_similarity() -> None:
    text = prose(1)
    longer = f"{text} and five more words here"
    found = copies_of([text, longer])
    assert found.out == {1: Finding("near copy of r/0.md", 56 / 61)}
    assert found.families == [0, 0]


def test_copies_are_of_survivors_only() -> None:
    one = prose(1, 100)
    near = f"{one} {prose(2, 15)}"
    farther = f"{near} {prose(3, 15)}"
    found = copies_of([one, near, farther, near])
    assert found.out[1] == Finding("near copy of r/0.md", 96 / 111)
    assert 2 not in found.out  # 0.76 to the first; 0.88 to the second, which is out
    assert found.out[3].rule == "near copy of r/2.md"
    assert found.families == [0, 0, 0, 0]


def test_equal_texts_without_words_are_copies_and_others_no_family() -> None:
    found = copies_of(["---", "***", "---"])
    assert found.out == {2: Finding("copy of r/0.md", 1.0)}
    assert found.families == [0, 1, 0]


def test_with_exact_and_near_off_copies_stay_and_are_one_family() -> None:
    section = replace(DEFAULT, exact=False, near=None)
    found = copies_of([prose(1), "---", prose(1), "---", f"{prose(1)} more"], section)
    assert found.out == {}
    assert found.families == [0, 1, 0, 1, 0]


def test_near_alone_leaves_equal_texts_out_as_well() -> None:
    found = copies_of([prose(1), prose(1)], replace(DEFAULT, exact=False))
    assert found.out == {1: Finding("near copy of r/0.md", 1.0)}


def test_one_document_in_three_formats_is_one_family() -> None:
    sections = {f"Part {n}": {"purpose": prose(n, 25), "limits": f"“{prose(n + 50, 25)}”"} for n in range(8)}
    markdown = "\n\n".join(
        f"## {name}\n\n- **Purpose:** {part['purpose']}\n- **Limits:** {part['limits']}"
        for name, part in sections.items()
    )
    compact = json.dumps(sections)
    folded = yaml.safe_dump(sections, allow_unicode=True, sort_keys=False)
    found = copies_of([markdown, compact, folded], replace(DEFAULT, near=None))
    assert found.families == [0, 0, 0]
    assert set(copies_of([markdown, compact, folded]).out) == {1, 2}


def test_versions_are_one_family_through_each_other() -> None:
    versions = [" ".join(prose(part) for part in range(count)) for count in (3, 5, 8)]
    shingles = list(ngram_hashes(versions, SHINGLE))
    assert jaccard(shingles[0], shingles[2]) < 0.5
    found = copies_of([*versions, prose(99)])
    assert found.out == {}
    assert found.families == [0, 0, 0, 1]


def test_a_note_inside_of_a_book_is_no_family() -> None:
    book = prose(1, 1000)
    assert copies_of([book, book[:300]]).families == [0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_as_brute_force_would(seed: int) -> None:
    texts = _mixed(seed, 300)
    found = copies_of(texts)
    shingles = list(ngram_hashes(texts, SHINGLE))
    survivors: list[int] = []
    out = set()
    for number, of in enumerate(shingles):
        if any(jaccard(of, shingles[other]) >= DEFAULT.near for other in survivors):
            out.add(number)
        else:
            survivors.append(number)
    related = [
        (one, other)
        for place, one in enumerate(survivors)
        for other in survivors[:place]
        if jaccard(shingles[one], shingles[other]) >= DEFAULT.family
    ]
    assert len(out) > 20
    assert len(related) > 100
    assert set(found.out) == out
    together = sum(found.families[one] == found.families[other] for one, other in related)
    assert together >= 0.99 * len(related)
    assert len({found.families[number] for number in survivors}) == _components(survivors, related)


def test_comparisons_grow_as_the_documents_do() -> None:
    template = prose(0, 100)
    texts = [f"{template} {prose(number, 40)}" for number in range(1, 2001)]
    few, many = copies_of(texts[:500]), copies_of(texts)
    assert few.out == many.out == {}
    assert len(set(many.families)) == 1
    assert many.comparisons <= 4.4 * few.comparisons
    assert many.comparisons <= 64 * len(texts)


def test_near_copies_meet_inside_of_a_large_cluster() -> None:
    template = prose(0, 60)
    texts = [f"{template} {prose(number, 60)}" for number in range(1, 1001)]
    found = copies_of([*texts, *(f"{text} end" for text in texts[::10])])
    assert [found.out[number].rule for number in range(1000, 1100)] == [
        f"near copy of r/{number}.md" for number in range(0, 1000, 10)
    ]


def _mixed(seed: int, count: int) -> list[str]:
    """Texts in groups, each made of a base with a random part of it replaced."""
    draw = random.Random(seed)
    texts = []
    for group in range(count // 6):
        base = prose(1000 * seed + group, draw.choice([8, 60, 400])).split()
        for _ in range(6):
            cut = draw.randrange(len(base) // 2, len(base))
            texts.append(" ".join(base[: max(cut, 5)] + prose(draw.randrange(10**9), (len(base) - cut) // 2).split()))
    return texts


def _components(numbers: list[int], pairs: list[tuple[int, int]]) -> int:
    component = {number: number for number in numbers}
    for one, other in pairs:
        old, new = component[one], component[other]
        component = {number: new if value == old else value for number, value in component.items()}
    return len(set(component.values()))


def test_records_that_differ_by_their_numbers_are_one_family_and_no_copies() -> None:
    record = "[2025-12-{0:02}T01:08:{1}] core: {2} | instance: {2} of {3}"
    texts = [record.format(day, 17 + day, hashlib.sha256(bytes([day])).hexdigest(), 9 * day) for day in range(1, 9)]
    found = copies_of([*texts, prose(1)])
    assert found.out == {}
    assert found.families == [0] * 8 + [1]
