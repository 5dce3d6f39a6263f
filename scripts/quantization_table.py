"""The README's table of what each GGUF type costs and loses, measured in llama.cpp by the gate's own code.

Every file is held against the model in float32, which the training backend computes, at the same held-out positions.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chrysalis_mlx import backends
from chrysalis_mlx.batches.paragraphs import spread
from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.export.calibration import IMATRIX, Texts, collect
from chrysalis_mlx.export.gate.divergence import measure
from chrysalis_mlx.export.gate.reference import Position, held_out_positions, held_out_segments, sample_text
from chrysalis_mlx.export.lineage.base_model import plain_name
from chrysalis_mlx.gguf.imatrix import Imatrix
from chrysalis_mlx.gguf.quantize import TYPES
from chrysalis_mlx.gguf.reader import import_gguf
from chrysalis_mlx.gguf.writer import Plan, plan_gguf, write_plan
from chrysalis_mlx.llamacpp.server import LlamaServer
from chrysalis_mlx.machine import choose_backend
from chrysalis_mlx.models.checkpoint import TensorSource
from chrysalis_mlx.models.directory import ModelDirectory

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- made by scripts/quantization_table -->", "<!-- end -->"
ROW_LENGTH = 512  # tokens; the context of llama-imatrix
IMATRIX_TOKENS = 16384
DOCUMENTS = ("README.md", "CHANGELOG.md")
ALONE, WEIGHTED = "alone", "weighted"  # without and with the importance matrix

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Bench:
    """What all files share: the weights, where the model was asked, and the importance of its columns."""

    source: TensorSource
    plan: Plan
    positions: list[Position]
    importance: Imatrix
    about: dict[str, Any]

    @classmethod
    def open(cls, options: argparse.Namespace, work: Path) -> Bench:
        """Everything that needs the model in memory."""
        import_gguf(options.model, work / "model")
        model = ModelDirectory.open(work / "model")
        text = options.text.read_text(encoding="utf-8") if options.text else documents()
        held_out = options.held_out.read_text(encoding="utf-8") if options.held_out else sample_text()
        held = held_out_segments(held_out, model.tokenizer, ROW_LENGTH)
        calibration = spread(held_out_segments(text, model.tokenizer, ROW_LENGTH), IMATRIX_TOKENS)
        name = options.text.name if options.text else " and ".join(DOCUMENTS)
        engine = backends.load(choose_backend().name)(model.path, dtype="float32")
        plan = plan_gguf(model.checkpoint(), model.plain_config, model.path)
        importance = collect(work / IMATRIX, plan.tensors, Texts(held, (), calibration, name, ROW_LENGTH), engine)
        about = {
            "model": plain_name(options.model.name),
            "held_out": options.held_out.name if options.held_out else "the gate's sample text",
            "held_out_tokens": sum(len(segment.tokens) for segment in held),
            "text": name,
            "text_tokens": sum(len(segment.tokens) for segment in calibration),
        }
        positions = held_out_positions(engine, held, options.positions, ROW_LENGTH)
        return cls(model.checkpoint(), plan, positions, importance, about)

    def figures(self, work: Path) -> dict[str, Any]:
        """Size and distance of every type, without and with the importance matrix."""
        weighted = [name for name, kind in TYPES.items() if kind.takes_importance]
        return {
            "about": self.about,
            ALONE: self._measured([name for name in TYPES if self._stands_alone(name)], None, work),
            WEIGHTED: self._measured(weighted, self.importance, work),
        }

    def _stands_alone(self, name: str) -> bool:
        try:
            self.plan.choose([name], None)
        except ExportError:  # garbage without an importance matrix
            return False
        return True

    def _measured(self, types: list[str], importance: Imatrix | None, work: Path) -> dict[str, Any]:
        found = {}
        paths = {name: work / f"{name}.gguf" for name in types}
        for name, file in write_plan(self.plan.choose(types, importance), paths, self.source).items():
            with LlamaServer(file.path, context=ROW_LENGTH + 16, precise=True) as server:
                distance = measure(server, self.positions)
            file.path.unlink()
            found[name] = {"bytes": file.bytes, "bits": file.bits_per_weight, **asdict(distance)}
            line = f"{name:<8}{'with importance matrix' if importance else 'alone':<24}KL {distance.kl:.5f}"
            print(line, file=sys.stderr, flush=True)
        return found


def documents() -> str:
    """The repository's own documents, without the table that comes out of this."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS]
    before, _, rest = texts[0].partition(f"{BEGIN}\n")
    return "\n\n".join([before + rest.partition(f"{END}\n")[2], *texts[1:]])


def table(figures: Figures) -> str:
    """Markdown: what was measured, and a line for each type."""
    about = figures["about"]
    first: Mapping[str, Any] = next(iter(figures[ALONE].values()))
    head = (
        f"{about['model']}, whose perplexity in float32 is {first['reference_perplexity']:.3f}; "
        f"{first['positions']} positions of {about['held_out']} ({about['held_out_tokens']:,} tokens);\n"
        f"importance matrix of {about['text_tokens']:,} tokens of {about['text']}.\n\n"
    )
    columns = ["type", "MB", "bits per weight", "KL", "perplexity", "top-1"]
    columns += ["KL, with importance matrix", "perplexity", "top-1"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name in TYPES:
        alone, weighted = figures[ALONE].get(name), figures[WEIGHTED].get(name)
        cells = [name, both(alone, weighted, lambda row: f"{row['bytes'] / 1e6:.1f}")]
        cells += [both(alone, weighted, lambda row: f"{row['bits']:.3f}")]
        lines.append(f"| {' | '.join([*cells, *distances(alone, '–'), *distances(weighted, 'same')])} |")
    return head + "\n".join(lines) + "\n"


def both(alone: Figures | None, weighted: Figures | None, shown: Callable[[Figures], str]) -> str:
    """One figure; without and with the importance matrix, where that makes a difference."""
    return " / ".join(dict.fromkeys(shown(row) for row in (alone, weighted) if row is not None))


def distances(row: Figures | None, missing: str) -> list[str]:
    """KL, perplexity and top-1 of a file; what is said of one that was not measured."""
    if row is None:
        return [missing] * 3
    return [f"{row['kl']:.5f}", f"{row['perplexity']:.3f}", f"{row['top1']:.1%}"]


def write(text: str) -> None:
    """Put the table between the markers of README.md."""
    file = ROOT / "README.md"
    before, begin, rest = file.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    _, end, after = rest.partition(f"{END}\n")
    if not (begin and end):
        raise SystemExit(f"{file} has no lines {BEGIN!r} and {END!r}")
    file.write_text(f"{before}{begin}{text}{end}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="SmolLM2's GGUF")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    parser.add_argument("--text", type=Path, help=f"of the importance matrix; by default {' and '.join(DOCUMENTS)}")
    parser.add_argument("--held-out", type=Path, help="what is measured on; by default the gate's sample text")
    parser.add_argument("--positions", type=int, default=512, help="how many (default: %(default)s)")
    parser.add_argument("--directory", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--figures", type=Path, help="keeps the figures; where it is there, nothing is measured")
    options = parser.parse_args()
    if options.figures and options.figures.is_file():
        figures = json.loads(options.figures.read_text(encoding="utf-8"))
    else:
        with tempfile.TemporaryDirectory(prefix="quantization-table-", dir=options.directory) as work:
            figures = Bench.open(options, Path(work)).figures(Path(work))
        if options.figures:
            options.figures.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(table(figures))
    if options.write:
        write(table(figures))


if __name__ == "__main__":
    main()
