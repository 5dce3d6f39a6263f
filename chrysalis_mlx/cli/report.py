"""chrysalis-mlx report: a run, or several, as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from chrysalis_mlx.cli.options import RunPath
from chrysalis_mlx.cli.output import json_option, print_json, say
from chrysalis_mlx.errors import UsageError

if TYPE_CHECKING:
    from chrysalis_mlx.report.facts import Facts

PAGE, COMPARISON = "report.html", "comparison.html"


@click.command(name="report")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=RunPath())
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Where the page goes; RUN/{PAGE} without it, of several runs {COMPARISON} in the first one.",
)
@click.option("--watch", is_flag=True, help="Serve the page on 127.0.0.1, anew while the run goes on; Ctrl-C ends it.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Of --watch; without it, a free one."
)
@click.option("--open", "opens", is_flag=True, help="Show the page in the browser.")
@json_option
def command(runs: tuple[Path, ...], output: Path | None, watch: bool, port: int, opens: bool, as_json: bool) -> None:
    """Write what became of RUN into one HTML file that needs no network: material, curves, evaluation, files, lineage.

    A run may be in any state. Several runs are compared. With --json the facts are printed, and a page is written only
    where -o says so.

    \b
    Examples:
      chrysalis-mlx report runs/one --open
      chrysalis-mlx report runs/one runs/two -o comparison.html
      chrysalis-mlx report runs/one --watch
    """
    if watch and (output or as_json):
        raise UsageError("--watch serves a page; it writes none and prints no JSON", fix="leave out -o and --json")
    if port and not watch:
        raise UsageError("--port is of --watch", fix="add --watch, or leave out --port")
    if watch:
        _watch(runs, port, opens)
        return
    from chrysalis_mlx.report.facts import read_facts
    from chrysalis_mlx.run import write_text

    found = [read_facts(run) for run in runs]
    file = output or (None if as_json and not opens else runs[0] / (PAGE if len(runs) == 1 else COMPARISON))
    if file is not None:
        write_text(file, _page(found))
    if as_json:
        print_json({"page": file, "runs": [facts.as_dict() for facts in found]})
    elif file is not None:
        say(f"{file}: {file.stat().st_size / 1000:,.0f} kB")
    if opens and file is not None:
        click.launch(str(file.absolute()))


def _page(found: list[Facts], *, live: bool = False, state: str = "") -> str:
    from chrysalis_mlx.report.compare import comparison_page
    from chrysalis_mlx.report.page import report_page

    if len(found) == 1:
        return report_page(found[0], live=live, state=state)
    return comparison_page(found, live=live, state=state)


def _watch(runs: tuple[Path, ...], port: int, opens: bool) -> None:
    from chrysalis_mlx.report.facts import read_facts
    from chrysalis_mlx.report.watch import WatchServer

    def page(state: str) -> str:
        return _page([read_facts(run) for run in runs], live=True, state=state)

    with WatchServer(runs, page, port) as server:
        server.page()  # what is wrong with a run is told here, not in the browser
        say(f"{server.url} follows {', '.join(map(str, runs))}; Ctrl-C ends it")
        if opens:
            click.launch(server.url)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            say("ended")
