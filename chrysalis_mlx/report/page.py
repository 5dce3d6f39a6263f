"""A run as one HTML page that needs nothing else: no network, no script, no font.

Every text of a stranger is escaped by Jinja, after `visible` has taken from it what a browser would obey.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError
from markupsafe import Markup

from chrysalis_mlx import __version__
from chrysalis_mlx.errors import RunError
from chrysalis_mlx.evaluation.copying import COPIED
from chrysalis_mlx.evaluation.general import SOURCE
from chrysalis_mlx.evaluation.results import Evaluation
from chrysalis_mlx.export.results import Exports
from chrysalis_mlx.report import plots, samples, tables, words
from chrysalis_mlx.report.curves import Training
from chrysalis_mlx.report.facts import Facts
from chrysalis_mlx.report.material import Material
from chrysalis_mlx.report.measured import of_general, of_test
from chrysalis_mlx.report.origin import Origin
from chrysalis_mlx.report.svg import Plot
from chrysalis_mlx.report.verdict import stage_title, verdict

TEMPLATES = Path(__file__).parent / "templates"
SCRIPT = TEMPLATES / "watch.js"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def policy(*, live: bool) -> str:
    """The Content-Security-Policy of a page; a live one may run our script and ask its own server."""
    if not live:
        return _POLICY
    digest = base64.b64encode(hashlib.sha256(SCRIPT.read_bytes()).digest()).decode()
    return f"{_POLICY}; script-src 'sha256-{digest}'; connect-src 'self'"


@contextmanager
def telling_damage() -> Iterator[None]:
    """While a page is made: a text that stands in a record where a number belongs is an error of one sentence.

    Raises:
        RunError: instead of what Python or Jinja says of it.
    """
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, TemplateError) as error:
        raise RunError(
            f"a record is damaged, or of another version, and cannot be shown: {type(error).__name__}: {error}",
            fix="make the stage again that wrote it; -v tells where it failed",
        ) from error


@telling_damage()
def report_page(facts: Facts, *, live: bool = False, state: str = "") -> str:
    """The page of one run.

    Args:
        live: it asks its server from time to time whether the run has changed.
        state: that a live page shows.

    Raises:
        RunError: a record holds what cannot be shown.
    """
    evaluation = facts.evaluation
    return render(
        "report.html.jinja",
        live=live,
        state=state,
        facts=facts,
        verdict=verdict(facts),
        tiles=_tiles(facts),
        material=_material(facts.material) if facts.material else None,
        training=_training(facts.training) if facts.training else None,
        evaluation=_evaluation(evaluation) if evaluation else None,
        export=tables.export(facts.exports) if facts.exports else None,
        export_notes=list(_export_notes(facts.exports)) if facts.exports else [],
        settings=tables.settings(facts),
        repositories=tables.repositories(facts.origin) if facts.origin else None,
        hashes=_hashes(facts.origin) if facts.origin else (),
        copied=COPIED,
        source=SOURCE,
    )


def render(template: str, *, live: bool, **context: Any) -> str:
    """A template of the package, filled in."""
    script = Markup(SCRIPT.read_text(encoding="utf-8")) if live else None
    return (
        _environment()
        .get_template(template)
        .render(**context, live=live, script=script, policy=policy(live=live), version=__version__)
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalized,
    )
    made.filters |= {
        name: getattr(words, name)
        for name in ("count", "figure", "share", "megabytes", "gibibytes", "duration", "moment", "plural", "shortened")
    }
    made.filters |= {"svg": _svg, "written": tables.written, "stage": stage_title}
    return made


def _svg(plot: Plot) -> Markup:
    return Markup(plot.svg)


def _finalized(value: Any) -> Any:
    """Every text that a template puts out, before Jinja escapes it: nothing in it is obeyed, and it ends somewhere."""
    return words.shortened(words.visible(value)) if isinstance(value, str) and not isinstance(value, Markup) else value


def _tiles(facts: Facts) -> list[tuple[str, str, str]]:
    """What is seen first: name, figure, and what it was or is of."""
    found: list[tuple[str, str, str]] = []
    if facts.evaluation:
        found += _tiles_of_evaluation(facts.evaluation)
    elif facts.training:
        training = facts.training
        of = f"of {training.planned:,}" if training.is_unfinished else ""
        found.append(("Steps", words.count(training.done), of))
        losses = training.curve("valid").values
        if losses:
            found.append(("Validation loss", words.figure(losses[-1]), f"at first {words.figure(losses[0])}"))
    if facts.material:
        side = facts.material.sides[0]
        found.append(("Training tokens", words.count(side.tokens), f"of {words.plural(side.documents, 'text')}"))
    if facts.exports:
        found.append(("Files verified", f"{facts.exports.verified}", f"of {len(facts.exports.files)}"))
    return found


def _tiles_of_evaluation(evaluation: Evaluation) -> Iterator[tuple[str, str, str]]:
    for measured in (
        of_test(evaluation, "Test perplexity"),
        of_general(evaluation, "General perplexity"),
    ):
        if measured:
            before, after = words.figure(measured.before.perplexity), words.figure(measured.after.perplexity)
            yield measured.name, after, f"before {before}"
    if copies := evaluation.tuned.copying.get("train"):
        yield "Copies of training text", f"{copies.copies:,}", f"of {copies.continuations:,} continuations"


def _export_notes(exports: Exports) -> Iterator[str]:
    """What else was written and told, a sentence each."""
    if "max_difference" in exports.fused:
        difference = words.figure(exports.fused["max_difference"], 2)
        dtype = exports.fused.get("dtype")
        yield f"fused/, in {dtype}, has the trained model's logits to within {difference} of the largest one"
    if exports.imatrix:
        yield f"the importance matrix was collected from {', '.join(exports.imatrix)}"
    if exports.adapter:
        yield f"the adapter alone: {exports.adapter}"
    yield from exports.notes


def _hashes(origin: Origin) -> tuple[tables.Table, tables.Table]:
    return tables.hashes(origin.model_files, "the base model"), tables.hashes(origin.adapter_files, "the adapter")


def _material(material: Material) -> dict[str, Any]:
    units = material.units
    return {
        "plot": plots.tokens_plot(material.parts, material.part),
        "sides": tables.sides(material),
        "framings": tables.framings(material),
        "parts": tables.parts(material),
        "left_out": tables.left_out(material.left_out, f"{units.capitalize()} left out of the corpus", units),
        "not_in_genome": tables.left_out(material.not_in_genome, "Files that are not in the genome", "files"),
        "commits": tables.left_out(material.commits_left_out, "Commits left out", "commits"),
    }


def _training(training: Training) -> dict[str, list[Plot]]:
    drawn = (plots.loss_plot, plots.rate_plot, plots.speed_plot, plots.memory_plot)
    return {"plots": [plot for draw in drawn if (plot := draw(training))]}


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    test, general = of_test(evaluation, "test texts"), of_general(evaluation, "general text")
    repositories, framings = tables.kinds(evaluation)
    return {
        "plot": plots.perplexity_plot([measured for measured in (test, general) if measured]),
        "test": tables.perplexity(test),
        "general": tables.perplexity(general) if general else None,
        "repositories": repositories,
        "framings": framings,
        "files": tables.files(evaluation),
        "copying": tables.copying(evaluation.subjects),
        "answered": samples.answered((tables.name_of(subject), subject) for subject in evaluation.subjects),
        "continued": samples.continued(evaluation.subjects),
    }
