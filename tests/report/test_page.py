"""The page of a run: whole, self-contained, and nobody's but ours."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from chrysalis_mlx.report.facts import Facts, read_facts
from chrysalis_mlx.report.page import SCRIPT, policy, report_page
from chrysalis_mlx.report.words import visible
from chrysalis_mlx.run import Run
from tests.report import cases

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """A page taken apart: elements with their attributes, the text of every element, and whether all are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def values(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.elements if name in attributes]

    def rows(self, caption: str) -> list[str]:
        """Texts of the rows of a table, a space between cells."""
        table = next(text for text in self.texts["table"] if text.split("\n")[1].strip() == caption)
        return [" ".join(line.split()) for line in table.split("\n") if line.strip()]


@pytest.fixture(scope="module")
def text(grown: Path) -> str:
    return report_page(read_facts(grown / "run"))


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_it_is_small_and_loads_nothing(text: str, page: Page) -> None:
    assert len(text.encode()) < 200_000
    assert not {"script", "img", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.elements}
    assert [href for href in page.values("href") if not href.startswith("#")] == ["data:,"]
    assert page.values("src") == []
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    meta = [attributes for tag, attributes in page.elements if tag == "meta"]
    (csp,) = (item["content"] for item in meta if item.get("http-equiv") == "Content-Security-Policy")
    assert csp == policy(live=False)
    assert csp is not None
    assert csp.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


def test_its_headings_are_a_tree_and_its_identifiers_are_its_own(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = {href[1:] for tag, attributes in page.elements if tag == "a" and (href := attributes["href"])}
    assert targets <= set(ids)
    assert {
        "material",
        "training",
        "perplexity",
        "retention",
        "memorization",
        "samples",
        "export",
        "lineage",
    } <= targets
    (language,) = (attributes["lang"] for tag, attributes in page.elements if tag == "html")
    assert language == "en"


def test_every_plot_says_what_it_shows(page: Page) -> None:
    plots = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert [(plot["aria-labelledby"] or "").split()[0] for plot in plots] == [
        f"{key}-title" for key in ("tokens", "loss", "rate", "speed", "memory", "perplexity")
    ]
    assert "validation loss: 4.000 at step 0" in page.texts["desc"][1]


def test_the_figures_are_those_of_the_records(page: Page, grown: Path) -> None:
    report = Run.open(grown / "run").stage("corpus")["report"]
    head, export = page.texts["header"][0], page.texts["section"][6]
    assert "Test perplexity fell from 17.20 to 14.70 (ratio 0.855, 95 % 0.832 to 0.877)" in head
    material = " ".join(page.texts["section"][0].split())
    for side in ("train", "valid", "test"):
        found = [report[figure][side] for figure in ("documents", "rows", "tokens", "supervised")]
        assert f"{side} " + " ".join(f"{number:,}" for number in found) in material
    assert f"{sum(report['tokens'].values()):,} tokens on all sides" in material
    training = " ".join(page.texts["section"][1].split())
    assert "60 optimizer steps, 6,000 tokens learned from, 30 s, 200 tokens per second" in training
    perplexity = " ".join(page.texts["section"][2].split())
    assert (
        "test texts4,799 tokens of 31 texts 17.2016.51 to 17.89 14.7014.11 to 15.29 0.8550.832 to 0.877" in perplexity
    )
    assert "docs 3,000 15.48 13.23 0.855" in perplexity
    assert "chat 799 12.04 10.29 0.855" in perplexity
    retention = " ".join(page.texts["section"][3].split())
    assert "general text2,047 tokens of 12 texts 12.1011.86 to 12.34 12.4012.15 to 12.65 1.020.998 to 1.05" in retention
    memory = " ".join(page.texts["section"][4].split())
    assert "repeats 50 characters or more" in memory
    assert "after 1 of 166 % 0 of 160 % 84 31" in memory
    assert "copied characters: before 40, after 84, Q4_K_M 84" in memory
    export = " ".join(export.split())
    assert "model-F16.gguf 2.0 MB 16.0 1.0e-6 100.0 % 10.00 – verified" in export
    assert "model-Q4_K_M.gguf 0.7 MB 5.50 0.050 90.0 % – – failed" in export
    assert "model-Q4_K_M.gguf failedKL 5.00e-02 is above | the budget" in export
    assert "Q4_K_M 15.1014.50 to 15.70 1.031.01 to 1.04 12.6012.35 to 12.85 1.020.997 to 1.03" in export


def test_notes_stand_where_they_belong(page: Page) -> None:
    notes = [note for items in page.texts["ul"] for note in items.split("\n") if note.strip()]
    assert notes == [
        "one test text was too short to be continued",
        "KL 5.00e-02 is above | the budget",
        "fused/, in float32, has the trained model's logits to within 2.5e-6 of the largest one",
        "the importance matrix was collected from wings: corpus/train.jsonl",
        "the adapter alone: adapter.gguf",
        "the model has no chat template",
    ]


def test_samples_stand_side_by_side(page: Page) -> None:
    samples = page.texts["section"][5]
    before, after = samples.index("I am a helpful assistant."), samples.index("I am a butterfly.")
    assert samples.index("Who are you?") < before < after < samples.index("What is a wing?")
    assert "I am a butterfly. Truly." in samples
    assert "at temperature 0.7 and with seed 3" in samples


def test_the_lineage_names_every_commit(page: Page, grown: Path) -> None:
    lineage, run = page.texts["section"][7], Run.open(grown / "run")
    facts = read_facts(grown / "run")
    assert facts.origin is not None
    for place in facts.origin.repositories:
        assert f"{place.state}" in lineage
    for sha256 in run.record["model"]["files"].values():
        assert sha256 in lineage
    assert run.record["genome"]["sha256"] in lineage
    assert "adapter.kind\ndora" in re.sub(r"\s*\n\s*", "\n", lineage)


def test_the_same_run_gives_the_same_page(text: str, grown: Path) -> None:
    assert report_page(read_facts(grown / "run")) == text


def test_what_has_not_been_done_is_said_to_be_missing(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", {"model": {"source": "owner/Tiny-1B"}, "blueprint": {"name": "tiny"}})
    page = Page(report_page(read_facts(tmp_path / "run")))
    told = [" ".join(section.split()) for section in page.texts["section"]]
    assert told[:7] == [
        "What went in There is no corpus yet.",
        "Training The training has not begun.",
        "Perplexity The evaluation has not been made yet.",
        "Retention Not measured yet.",
        "Memorization Not measured yet.",
        "Samples No samples yet.",
        "Export No file has been exported yet.",
    ]
    assert "Nothing has been done yet." in page.texts["header"][0]
    assert "svg" not in page.texts


def test_a_failure_and_an_outdated_stage_are_told(run: Run) -> None:
    run.record["stages"]["train"] |= {"status": "failed", "reason": "step 5: the loss is nan\n  to do: lower it"}
    run.stage("corpus")["outputs"]["corpus/train.jsonl"]["sha256"] = "0" * 64
    run.save()
    head = Page(report_page(read_facts(run.directory))).texts["header"][0]
    assert "The training failed: step 5: the loss is nan" in head
    assert "step 5: the loss is nan\n  to do: lower it" in head
    assert "The training was made from other files" in head


def test_strangers_texts_are_shown_and_never_obeyed(hostile: Facts) -> None:
    text = report_page(hostile)
    page = Page(text)
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert text.count("<style") == text.count("</style") == 1
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert len(text.encode()) < 1_500_000
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", text)
    body = html.unescape(text)
    for place, stranger in enumerate(cases.HOSTILE):
        assert visible(stranger)[:30] in body, place
    assert "{{ 7 * 7 }}" in body
    assert "w" * 5000 not in text
    assert re.search(r"… \([\d,]+ more characters\)", text)
    words = " ".join(page.texts["section"][1].split())
    assert "2 steps had a loss that is no finite number" in words
    assert "The first: 10, 11." in words


def test_a_live_page_runs_our_script_alone(grown: Path) -> None:
    page = Page(report_page(read_facts(grown / "run"), live=True, state="abc"))
    assert page.texts["script"] == [SCRIPT.read_text(encoding="utf-8")]
    digest = base64.b64encode(hashlib.sha256(page.texts["script"][0].encode()).digest()).decode()
    assert policy(live=True).endswith(f"script-src 'sha256-{digest}'; connect-src 'self'")
    assert policy(live=True) in page.values("content")
    assert page.values("data-state") == ["abc"]
