"""Genome and blueprint to rows: what is in, on which side, how often, in which order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chrysalis_mlx.blueprint.schema import BudgetSection, CopiesSection, FramingSection, GatesSection
from chrysalis_mlx.corpus.build import _fit_to_train, corpus_of_genome
from chrysalis_mlx.corpus.write import Corpus
from chrysalis_mlx.errors import CorpusError
from chrysalis_mlx.genome.git.patch import FileDiff
from chrysalis_mlx.genome.history import Commit
from chrysalis_mlx.genome.text.format import GenomeFile
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests.corpus.frame.test_fim import fim_tokenizer
from tests.corpus.genomes import (
    BLUEPRINT,
    FILES,
    FORMS,
    OLDER,
    SIDES,
    WORDS,
    chapter,
    expressing,
    made,
    ngrams,
    prose,
    said,
    with_mix,
)

__all__ = ["fim_tokenizer"]


def account(corpus: Corpus) -> dict[str, dict[str, Any]]:
    return {f"{file['repository']}/{file['path']}": file for file in corpus.files}


def sides_of(corpus: Corpus) -> dict[str, str]:
    return {name: file["side"] for name, file in account(corpus).items() if file["expressed"]}


def test_the_account_tells_of_every_file_in_genome_order(tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus = made(tmp_path, tokenizer)
    told = account(corpus)
    assert list(told) == [f"{file.repository}/{file.path}" for file in FILES]
    out = {name: (file["rule"], file.get("score")) for name, file in told.items() if not file["expressed"]}
    near, share = out.pop("docs/near.md"), out.pop("old-backup/0.md")
    assert out == {
        "docs/blank.md": ("gate: characters", 0.0),
        "docs/copy.md": ("copy of docs/3.md", 1.0),
        "docs/repeats.md": ("gate: zlib_ratio", round(told["docs/repeats.md"]["scores"]["zlib_ratio"], 4)),
        "data/facts.yaml": ("near copy of data/facts.json", 1.0),
        "notes/facts.md": ("near copy of data/facts.json", 1.0),
        "logs/today.log": ("exclude: logs/*", None),
    }
    assert (near[0], 0.9 < near[1] < 1) == ("near copy of docs/4.md", True)
    assert (share[0], share[1] > 0.9) == ("backup of known text", True)
    assert told["logs/today.log"] == {
        "repository": "logs",
        "path": "today.log",
        "expressed": False,
        "rule": "exclude: logs/*",
        "scores": {},
    }
    for name, file in told.items():
        head = ["repository", "path", "expressed", "rule"]
        if file["expressed"]:
            assert list(file) == [*head, "scores", "family", "side", "weight", "tokens"]
            assert (file["rule"], file["weight"], file["side"] in SIDES) == ("include: *", 1.0, True)
            assert file["scores"]["characters"] == len(told_text(name).strip())
            assert file["tokens"] == len(tokenizer.encode(told_text(name)))
        else:
            assert {"side", "weight", "tokens"}.isdisjoint(file)
            if " copy of " in f" {file['rule']}":
                assert file["family"] == told[file["rule"].split(" of ")[1]]["family"]
            else:
                assert "family" not in file


def told_text(name: str) -> str:
    return next(file.text for file in FILES if f"{file.repository}/{file.path}" == name)


def test_rows_are_of_the_side_that_the_account_says_and_hold_the_whole_text(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    corpus = made(tmp_path, tokenizer)
    bodies: dict[str, str] = {}
    for side in SIDES:
        for row in corpus.rows[side]:
            name = f"{row['repository']}/{row['path']}"
            assert account(corpus)[name]["side"] == side
            assert row["text"].startswith(f"# {name}\n\n")
            bodies[name] = bodies.get(name, "") + row["text"].removeprefix(f"# {name}\n\n")
        assert [document.name for document in corpus.documents[side]] == list(
            dict.fromkeys(f"{row['repository']}/{row['path']}" for row in corpus.rows[side])
        )
    assert bodies.keys() == sides_of(corpus).keys()
    for name, body in bodies.items():
        assert body.split() == told_text(name).split()


@pytest.mark.parametrize("seed", range(5))
def test_a_family_is_never_on_two_sides(tmp_path: Path, tokenizer: Tokenizer, seed: int) -> None:
    """The same document as .json, .yaml and .md; an older version; near copies, where they may stay."""
    blueprint = replace(
        expressing(copies=CopiesSection(exact=False, near=None)), split=replace(BLUEPRINT.split, seed=seed)
    )
    corpus = made(tmp_path, tokenizer, blueprint)
    sides = sides_of(corpus)
    families: dict[int, set[str]] = {}
    for name, side in sides.items():
        families.setdefault(account(corpus)[name]["family"], set()).add(side)
    assert [family for family, found in families.items() if len(found) > 1] == []
    for together in (
        [f"{file.repository}/{file.path}" for file in FORMS],
        ["docs/7.md", f"{OLDER.repository}/{OLDER.path}"],
        ["docs/3.md", "docs/copy.md"],
        ["docs/4.md", "docs/near.md"],
    ):
        assert len({account(corpus)[name]["family"] for name in together}) == 1
        assert len({sides[name] for name in together}) == 1
    assert len({account(corpus)[f"docs/{n}.md"]["family"] for n in range(10)}) == 10


@pytest.mark.parametrize("seed", range(3))
def test_what_is_alike_without_13_words_in_common_stays_together(
    tmp_path: Path, tokenizer: Tokenizer, seed: int
) -> None:
    """Versions of which every twelfth word is another: no n-gram tells, the family does."""
    texts = {f"{n}.md": prose(n, 120) for n in range(12)}
    files = [GenomeFile("new", path, text) for path, text in texts.items()]
    for number, (path, text) in enumerate(texts.items()):
        words = [f"w{number}x{at}" if at % 12 == 5 else word for at, word in enumerate(text.split())]
        files.append(GenomeFile("old", path, " ".join(words) + "\n"))
    blueprint = replace(expressing(copies=CopiesSection(family=0.35)), split=replace(BLUEPRINT.split, seed=seed))
    sides = sides_of(made(tmp_path, tokenizer, blueprint, files))
    assert not ngrams(file.text for file in files[:12]) & ngrams(file.text for file in files[12:])
    assert Counter(sides.values()) == {"train": 16, "valid": 4, "test": 4}
    assert {path: sides[f"old/{path}"] for path in texts} == {path: sides[f"new/{path}"] for path in texts}


@pytest.mark.parametrize("mix", [{"text": 1.0}, {"text": 0.5, "completion": 0.5, "chat": 0.5}])
def test_no_row_that_is_kept_back_shares_13_words_with_what_is_trained_on(
    tmp_path: Path, tokenizer: Tokenizer, mix: dict[str, float]
) -> None:
    licence = prose(77)
    files = [*FILES, *(GenomeFile("docs", f"licence {n}.md", licence + prose(80 + n, 200)) for n in range(2))]
    corpus = made(tmp_path, tokenizer, with_mix(**mix), files)
    trained_on = ngrams(map(said, corpus.rows["train"]))
    for side in ("valid", "test"):
        kept_back = ngrams(map(said, corpus.rows[side]))
        assert len(kept_back) > 100
        assert not kept_back & trained_on
    assert {sides_of(corpus)[f"docs/licence {n}.md"] for n in range(2)} == {"train"}  # they share a page


def test_weights_repeat_rows_that_are_trained_on_and_no_others(tmp_path: Path, tokenizer: Tokenizer) -> None:
    once = made(tmp_path / "once", tokenizer)
    weighted = made(tmp_path / "weighted", tokenizer, expressing(weights={"notes": 0, "do*": 2}))
    assert {account(weighted)[name]["weight"] for name in sides_of(weighted) if name.startswith("docs/")} == {2.0}
    assert account(weighted)["notes/20.txt"]["rule"] == "weight 0"
    assert not any(row["repository"] == "notes" for side in SIDES for row in weighted.rows[side])
    assert any(row["repository"] == "notes" for row in once.rows["train"])
    for side in SIDES:
        seen = Counter(row["text"] for row in weighted.rows[side])
        for row in weighted.rows[side]:
            assert seen[row["text"]] == (2 if side == "train" and row["repository"] == "docs" else 1)


def test_a_fraction_is_the_share_of_the_documents_that_an_epoch_has(tmp_path: Path, tokenizer: Tokenizer) -> None:
    files = [GenomeFile("docs", f"{n}.md", prose(n, 30)) for n in range(200)]
    corpus = made(tmp_path, tokenizer, expressing(weights={"docs": 1.5}), files)
    times = Counter(row["path"] for row in corpus.rows["train"])
    assert set(times.values()) == {1, 2}
    assert len(times) == len(corpus.documents["train"]) == 120
    assert 0.35 < sum(count == 2 for count in times.values()) / 120 < 0.65


def test_what_is_not_due_in_an_epoch_is_not_in(tmp_path: Path, tokenizer: Tokenizer) -> None:
    files = [GenomeFile("docs", f"{n}.txt", prose(n)) for n in range(60)]
    corpus = made(tmp_path, tokenizer, expressing(weights={"docs": 0.25}), files)
    in_rows = {f"{row['repository']}/{row['path']}" for rows in corpus.rows.values() for row in rows}
    told = account(corpus)
    assert {name for name, file in told.items() if file["expressed"]} == in_rows
    rules = Counter(file["rule"] for file in told.values())
    assert rules.keys() == {"include: *", "not due in an epoch"}
    trained = sum(file["side"] == "train" for file in told.values())
    assert trained == len(corpus.documents["train"]) == len({row["path"] for row in corpus.rows["train"]})
    assert 0.1 < trained / (trained + rules["not due in an epoch"]) < 0.4


def test_the_budget_is_not_spent_on_what_cannot_be_framed(tmp_path: Path, tokenizer: Tokenizer) -> None:
    numbers = [GenomeFile("a", f"{n}.csv", "".join(f"{n}{m}9,{m * n}7\n" for m in range(99))) for n in range(5)]
    documents = [GenomeFile("a", f"{n}.md", chapter(n)) for n in range(6)]
    most = sum(len(tokenizer.encode(file.text)) for file in documents)
    asked = expressing(budget=BudgetSection(total=most), gates=replace(GatesSection(), max_symbols=None))
    corpus = made(tmp_path, tokenizer, with_mix(asked, completion=1), [*numbers, *documents])
    assert Counter(file["rule"] for file in corpus.files) == {"no framing": 5, "include: *": 6}


def test_commits_of_copies_of_what_is_kept_back_are_kept_back(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Their older versions share no n-gram with it, and are its older versions all the same."""
    corpus = made(tmp_path, tokenizer)
    told = account(corpus)
    copies = {name: file["family"] for name, file in told.items() if file["rule"].startswith("near copy of data")}
    assert len(copies) == 2
    told["data/facts.json"]["side"] = "test"

    def commit(number: int, name: str) -> Commit:
        repository, path = name.split("/", 1)
        hunk = "@@ -1 +1 @@\n" + "".join(f"{mark}{word} {number}\n" for mark, word in zip("-+", WORDS, strict=False))
        file = FileDiff(path, path, "100644", f"--- a/{path}\n+++ b/{path}\n", (hunk,))
        return Commit(repository, f"{number:040x}", "Write the facts down anew", (file,))

    commits = [commit(number, name) for number, name in enumerate([*copies, "docs/repeats.md", "notes/new.md"])]
    again = replace(commits[-1], sha="f" * 40)
    left_out: Counter[str] = Counter()
    kept = list(_fit_to_train([*commits, again], corpus, BLUEPRINT, left_out))
    assert [commit.files[0].path for commit in kept] == ["new.md"]
    assert left_out == {"changes only what is kept back or closed on": 3, "the same change as another commit's": 1}


def test_rows_stand_in_curriculum_order(tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus = made(tmp_path, tokenizer, expressing(first=("notes/2*", "data"), last=("docs/1.md", "docs/0.md")))
    for side in SIDES:
        names = [document.name for document in corpus.documents[side]]
        rank = {"docs/1.md": 3, "docs/0.md": 4, "old-backup/lost.md": 5, "data/facts.json": 1}
        ranks = [0 if name.startswith("notes/2") else rank.get(name, 2) for name in names]
        assert ranks == sorted(ranks)
        for middle in (0, 2):
            stood = [list(account(corpus)).index(name) for name, of in zip(names, ranks, strict=True) if of == middle]
            assert stood == sorted(stood)  # in genome order
    assert account(corpus)["old-backup/lost.md"]["expressed"]


def test_of_several_copies_the_first_of_the_curriculum_stays(tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus = made(tmp_path, tokenizer, expressing(first=("docs/copy.md", "notes/facts.md")))
    assert account(corpus)["docs/3.md"]["rule"] == "copy of docs/copy.md"
    assert account(corpus)["data/facts.json"]["rule"] == "near copy of notes/facts.md"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("drop", {"0.md": "backup", "lost.md": "backup"}),
        ("unique-only", {"0.md": "backup of known text", "lost.md": "include: *"}),
        ("keep", {"0.md": "include: *", "lost.md": "include: *"}),
    ],
)
def test_backups(tmp_path: Path, tokenizer: Tokenizer, policy: Any, expected: dict[str, str]) -> None:
    corpus = made(tmp_path, tokenizer, expressing(copies=CopiesSection(backups=policy)))
    assert {path: account(corpus)[f"old-backup/{path}"]["rule"] for path in ("0.md", "lost.md")} == expected


def test_a_budget_holds_and_says_what_it_left_out(tmp_path: Path, tokenizer: Tokenizer) -> None:
    def spent(corpus: Corpus) -> Counter[str]:
        counts: Counter[str] = Counter()
        for file in corpus.files:
            counts[file["repository"]] += file.get("tokens", 0)
        return counts

    all_in = spent(made(tmp_path / "all", tokenizer))
    total = sum(all_in.values()) // 2
    half = made(tmp_path / "half", tokenizer, expressing(budget=BudgetSection(total=total)))
    assert 0.7 * total < sum(spent(half).values()) <= total
    assert spent(half)["old-backup"] == 0  # backups give way first
    assert (spent(half)["notes"], spent(half)["data"]) == (all_in["notes"], all_in["data"])  # then the largest
    left_out = [file for file in half.files if file["rule"] == "budget: total"]
    assert {file["repository"] for file in left_out} == {"docs", "old-backup"}
    for file in left_out:
        assert file["score"] == len(tokenizer.encode(told_text(f"{file['repository']}/{file['path']}")))

    most = all_in["docs"] // 3
    few = made(tmp_path / "few", tokenizer, expressing(budget=BudgetSection(per_repository=most)))
    assert max(spent(few).values()) <= most
    kept = [name for name in sides_of(few) if name.startswith("docs/")]
    assert kept[:2] == ["docs/0.md", "docs/1.md"]
    assert {file["rule"] for file in few.files if file["path"] == "9.md"} == {"budget: per repository"}


def test_open_gates_let_everything_in_but_the_blank_file(tmp_path: Path, tokenizer: Tokenizer) -> None:
    gates = GatesSection(min_zlib_ratio=None, max_repeated_lines=None, max_repeated_ngrams=None)
    corpus = made(tmp_path, tokenizer, expressing(gates=gates))
    assert account(corpus)["docs/repeats.md"]["expressed"]
    assert not account(corpus)["docs/blank.md"]["expressed"]


def test_what_no_way_of_the_mix_can_frame_is_left_out(tmp_path: Path, fim_tokenizer: Tokenizer) -> None:
    files = [*FILES, *(GenomeFile("code", f"{n}.py", f'"""{prose(50 + n)}"""\n') for n in range(4))]
    corpus = made(tmp_path, fim_tokenizer, with_mix(fim=1), files)
    assert sides_of(corpus).keys() == {f"code/{n}.py" for n in range(4)}
    document = account(corpus)["docs/1.md"]
    assert (document["expressed"], document["rule"]) == (False, "no framing")
    assert document["scores"]["characters"] == len(chapter(1).strip())
    assert "side" not in document
    assert all("<fim_middle>" in row["text"] for side in SIDES for row in corpus.rows[side])


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        ({"fim": 1.0}, "fim needs tokens for filling in the middle, which the model does not have"),
        ({"chat": 1.0}, "chat needs a chat template, which the model does not have"),
        ({"chat": 1.0, "fim": 0.5}, "chat needs a chat template, .*; fim needs tokens"),
        ({"history": 1.0}, "history makes rows of commits alone"),
    ],
)
def test_a_mix_that_the_model_cannot_learn_is_told_before_anything_is_read(
    tmp_path: Path, tokenizer: Tokenizer, mix: dict[str, float], words: str
) -> None:
    mute = Tokenizer(tokenizer._engine, tokenizer.eos_id, None)
    with pytest.raises(CorpusError, match=rf"no file can be framed: {words}(.|\n)*framing\.mix(.|\n)*add text"):
        corpus_of_genome(tmp_path / "nothing here", with_mix(**mix), mute)


def test_a_mix_that_the_model_can_learn_in_part_goes_on_with_that(tmp_path: Path, tokenizer: Tokenizer) -> None:
    mute = Tokenizer(tokenizer._engine, tokenizer.eos_id, None)
    corpus = made(tmp_path, mute, with_mix(chat=1, fim=1, completion=0.1))
    assert {row["framing"] for side in SIDES for row in corpus.rows[side]} == {"completion"}


def test_nothing_left_and_too_little_left_are_errors(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(CorpusError, match=rf"none of the genome's {len(FILES)} files is expressed(.|\n)*loosen"):
        made(tmp_path, tokenizer, expressing(include=("*.rs",)))
    with pytest.raises(CorpusError, match=r"2 document\(s\) in 2 families are left"):
        made(tmp_path, tokenizer, files=FILES[:2])


def test_a_header_too_long_for_the_row_is_an_error(tmp_path: Path, tokenizer: Tokenizer) -> None:
    long = replace(BLUEPRINT, framing=FramingSection(header="word " * 90 + "\n"))
    with pytest.raises(CorpusError, match="leaves 0 of 128 tokens for its text"):
        made(tmp_path, tokenizer, long)


def test_a_document_whose_header_leaves_no_room_is_left_out(tmp_path: Path, tokenizer: Tokenizer) -> None:
    files = [*FILES, GenomeFile("docs", f"{'deep/' * 60}far.md", prose(77))]
    corpus = made(tmp_path, tokenizer, files=files)
    entry = account(corpus)[f"docs/{'deep/' * 60}far.md"]
    assert (entry["expressed"], entry["rule"], entry["side"]) == (False, "no room", None)
    assert {row["path"] for side in SIDES for row in corpus.rows[side]} == {
        told["path"] for told in account(corpus).values() if told["expressed"]
    }


def test_a_byte_order_mark_and_crlf_are_no_part_of_a_row(tmp_path: Path, tokenizer: Tokenizer) -> None:
    files = [*FILES, GenomeFile("docs", "dos.md", "\ufefffirst line\r\nsecond line\r\n")]
    corpus = made(tmp_path, tokenizer, files=files)
    (row,) = [row for side in SIDES for row in corpus.rows[side] if row["path"] == "dos.md"]
    assert row["text"] == "# docs/dos.md\n\nfirst line\nsecond line\n"
