"""A run as one HTML page that needs nothing else: no network, no script, no font.

Every text of a stranger is escaped by Jinja, after `visible` has taken from it what a browser would obey.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from chrysalis_mlx import __version__
from chrysalis_mlx.evaluation.copying import COPIED
from chrysalis_mlx.evaluation.general import SOURCE
from chrysalis_mlx.evaluation.results import Evaluation
from chrysalis_mlx.export.results import Exports
from chrysalis_mlx.report import plots, samples, tables, words
from chrysalis_mlx.report.curves import Training
from chrysalis_mlx.report.facts import Facts
from chrysalis_mlx.report.material import Material
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


def report_page(facts: Facts, *, live: bool = False, state: str = "") -> str:
    """The page of one run.

    Args:
        live: it asks its server from time to time whether the run has changed.
        state: that a live page shows.
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
    found = []
    evaluation = facts.evaluation
    if evaluation:
        base, tuned = evaluation.base, evaluation.tuned
        pairs = [("Test perplexity", base.test.overall, tuned.test.overall)]
        pairs += [("General perplexity", base.general, tuned.general)] if base.general and tuned.general else []
        found += [(name, words.figure(after.perplexity), f"before {words.figure(before.perplexity)}")
                  for name, before, after in pairs]  # fmt: skip
        if copies := tuned.copying.get("train"):
            found.append(
                ("Copies of training text", f"{copies.copies:,}", f"of {copies.continuations:,} continuations")
            )
    elif facts.training:
        training = facts.training
        of = f"of {training.planned:,}" if training.planned and training.planned > training.done else ""
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
    unit = "files" if material.unit == "file" else "rows"
    what = "repository" if material.unit == "file" else "file"
    return {
        "unit": unit,
        "plot": plots.tokens_plot(material.parts, what),
        "sides": tables.sides(material),
        "framings": tables.framings(material),
        "parts": tables.parts(material),
        "left_out": tables.left_out(material.left_out, f"{unit.capitalize()} left out of the corpus", unit),
        "not_in_genome": tables.left_out(material.not_in_genome, "Files that are not in the genome", "files"),
        "commits": tables.left_out(material.commits_left_out, "Commits left out", "commits"),
    }


def _training(training: Training) -> dict[str, list[Plot]]:
    drawn = (plots.loss_plot, plots.rate_plot, plots.speed_plot, plots.memory_plot)
    return {"plots": [plot for draw in drawn if (plot := draw(training))]}


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    base, tuned, changes = evaluation.base, evaluation.tuned, evaluation.changes
    rows = [("test texts", base.test.overall, tuned.test.overall, changes.get("test"))]
    general = None
    if base.general and tuned.general:
        general = ("general text", base.general, tuned.general, changes.get("general"))
    repositories, framings = tables.kinds(evaluation)
    measured = [
        plots.Measured(name, before, after) for name, before, after, _ in [*rows, *([general] if general else [])]
    ]
    return {
        "plot": plots.perplexity_plot(measured),
        "test": tables.perplexity(rows),
        "general": tables.perplexity([general]) if general else None,
        "repositories": repositories,
        "framings": framings,
        "files": tables.files(evaluation),
        "copying": tables.copying(evaluation.subjects),
        "answered": samples.answered(evaluation.subjects),
        "continued": samples.continued(evaluation.subjects),
    }
