"""The pages as Chromium shows them: on a phone and on a desk, by day and by night."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chrysalis_mlx.report.compare import comparison_page
from chrysalis_mlx.report.facts import Facts, read_facts
from chrysalis_mlx.report.page import report_page
from chrysalis_mlx.report.watch import WatchServer
from chrysalis_mlx.run import Run
from tests.report import cases
from tests.report.conftest import write_metrics
from tests.serving import serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

KINDS = ("finished", "hostile", "begun", "comparison")
WIDTHS = (390, 1440)

# Every piece of text that is shown, its colour against what lies behind it (WCAG 2.2, 1.4.3), and its size.
CONTRASTS = """
() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    const unseen = !element.checkVisibility() || ["TITLE", "DESC", "SCRIPT"].includes(element.tagName.toUpperCase());
    if (unseen || !node.data.trim()) continue;
    const style = getComputedStyle(element), svg = element.ownerSVGElement, drawn = Boolean(svg);
    const [a, b] = [light(parse(drawn ? style.fill : style.color)), light(behind(element))];
    const scale = drawn ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    found.push([(Math.max(a, b) + .05) / (Math.min(a, b) + .05), parseFloat(style.fontSize) * scale, drawn,
                element.tagName + ": " + node.data.trim().slice(0, 40)]);
  }
  return found;
}
"""


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory, grown: Path, hostile: Facts) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    begun = Run.create(folder / "a run", {})
    finished = read_facts(grown / "run")
    texts = {
        "finished": report_page(finished),
        "hostile": report_page(hostile),
        "begun": report_page(read_facts(begun.directory)),
        "comparison": comparison_page([finished, hostile]),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@contextmanager
def looking(browser: Browser, width: int, scheme: Any = "light") -> Iterator[tuple[Page, list[str], list[str]]]:
    """A page, what the console said, and the addresses that were asked for."""
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    yield page, said, asked
    context.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_loaded_nothing_is_wrong_and_nothing_sticks_out(
    browser: Browser, pages: dict[str, Path], kind: str, width: int
) -> None:
    address = pages[kind].as_uri()
    with looking(browser, width) as (page, said, asked):
        page.goto(address)
        page.evaluate("document.querySelectorAll('details').forEach((box) => { box.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        boxes = page.evaluate(
            "[...document.querySelectorAll('svg')].map((svg) => svg.getBoundingClientRect().toJSON())"
        )
        assert len(boxes) == {"finished": 6, "hostile": 6, "begun": 0, "comparison": 6}[kind]
        for box in boxes:
            assert box["width"] > 300
            assert box["height"] > 30
            assert box["left"] >= 0
            assert box["right"] <= width
        assert (said, asked) == ([], [address])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["finished", "comparison"])
def test_every_text_can_be_read(browser: Browser, pages: dict[str, Path], kind: str, scheme: str, width: int) -> None:
    with looking(browser, width, scheme) as (page, _, _):
        page.goto(pages[kind].as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((box) => { box.open = true; })")
        found = page.evaluate(CONTRASTS)
    assert len(found) > 200
    assert sum(drawn for _, _, drawn, _ in found) > 30
    assert [text for contrast, _, _, text in found if contrast < 4.5] == []
    assert [text for _, size, _, text in found if size < 10] == []


def test_day_and_night_differ(browser: Browser, pages: dict[str, Path]) -> None:
    shown = []
    for scheme in ("light", "dark"):
        with looking(browser, 390, scheme) as (page, _, _):
            page.goto(pages["finished"].as_uri())
            shown.append(
                page.evaluate(
                    "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color, "
                    "getComputedStyle(document.querySelector('svg text')).fill]"
                )
            )
    for light, dark in zip(*shown, strict=True):
        assert light != dark
    assert shown[0][0] == "rgb(251, 250, 247)"
    assert shown[1][0] == "rgb(20, 22, 26)"


def test_on_paper_there_is_nothing_to_click(browser: Browser, pages: dict[str, Path]) -> None:
    shown = "(name) => getComputedStyle(document.querySelector(name)).display"
    with looking(browser, 1440) as (page, _, _):
        page.goto(pages["finished"].as_uri())
        assert page.evaluate(shown, "nav") == "flex"
        page.emulate_media(media="print")
        assert [page.evaluate(shown, name) for name in ("nav", ".skip", ".verdict")] == ["none", "none", "block"]


def test_a_wide_table_scrolls_in_its_own_box(browser: Browser, pages: dict[str, Path]) -> None:
    wide = "[...document.querySelectorAll('.box')].filter((box) => box.scrollWidth > box.clientWidth)"
    with looking(browser, 390) as (page, _, _):
        page.goto(pages["hostile"].as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((box) => { box.open = true; })")
        outside = f"{wide}.filter((box) => getComputedStyle(box).overflowX !== 'auto' || box.tabIndex !== 0).length"
        assert page.evaluate(outside) == 0
        # The files' table is cards, and needs no pushing.
        assert page.evaluate(f"{wide}.filter((box) => box.querySelector('.cards')).length") == 0
        assert page.locator("#export table td").first.evaluate("(cell) => getComputedStyle(cell).display") == "block"


def test_a_live_page_takes_over_what_is_new(browser: Browser, run: Run) -> None:
    write_metrics(run, cases.events(30))
    run.record["stages"]["train"] |= {"status": "paused", "steps": 60}
    run.record["stages"]["eval"]["status"] = "paused"
    run.save()

    def made(state: str) -> str:
        return report_page(read_facts(run.directory), live=True, state=state)

    with serving(WatchServer([run.directory], made)) as server, looking(browser, 390) as (page, said, asked):
        page.clock.install()
        page.goto(server.url)
        steps = page.locator("#training > p").first
        assert "30 of 60 optimizer steps" in steps.inner_text()
        page.evaluate("document.querySelector('#lineage details').open = true; window.scrollTo(0, 900);")
        page.evaluate("window.mark = 1")
        write_metrics(run, cases.events(45))
        page.clock.run_for(3100)
        page.get_by_text("45 of 60 optimizer steps").wait_for()
        assert page.evaluate("[window.mark, window.scrollY]") == [1, 900]
        assert page.evaluate("document.querySelector('#lineage details').open")
        assert "live, as of" in page.locator("#live").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert said == []
        assert {address.removeprefix(server.url) for address in asked} == {"", "state"}
