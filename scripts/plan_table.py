"""The table of the README's section "What fits on your Mac": settings that fit, by model and memory."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from chrysalis_mlx.blueprint.library import find_blueprint  # noqa: E402
from chrysalis_mlx.blueprint.load import load_blueprint  # noqa: E402
from chrysalis_mlx.blueprint.schema import Blueprint, TrainingSection  # noqa: E402
from chrysalis_mlx.training.plan import Base, usable_memory  # noqa: E402
from tests.models.published import PUBLISHED  # noqa: E402

BEGIN, END = "<!-- made by scripts/plan_table -->", "<!-- end -->"
SIZES = (8, 16, 32, 64)
# Shipped blueprint -> the model whose published config.json counts.
MODELS = {
    "gemma-3-270m": "google/gemma-3-270m",
    "smollm2-360m": "HuggingFaceTB/SmolLM2-360M",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "gemma-3-1b": "google/gemma-3-1b-it",
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B",
    "phi-3-mini-qlora": "mlx-community/Phi-3-mini-4k-instruct-4bit",
    "qwen3-4b-qlora": "mlx-community/Qwen3-4B-4bit",
}
LENGTHS, ROWS, RANKS = (512, 1024, 2048, 4096), (1, 2, 4, 8), (8, 16, 32, 64)


def main() -> None:
    """Print the table; `--write` puts it between the markers of README.md."""
    if sys.argv[1:] != ["--write"]:
        sys.stdout.write(table())
        return
    file = ROOT / "README.md"
    before, _, rest = file.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    _, _, after = rest.partition(f"{END}\n")
    file.write_text(f"{before}{BEGIN}\n{table()}{END}\n{after}", encoding="utf-8")


def table() -> str:
    """Markdown: a line for each model, a column for each memory."""
    lines = [f"| model | {' | '.join(f'{size} GB' for size in SIZES)} |", "|---" * (len(SIZES) + 1) + "|"]
    for name, source in MODELS.items():
        blueprint = load_blueprint(find_blueprint(name))
        base = Base.of(ROOT / "nowhere", PUBLISHED[source][0])
        cells = (cell(base, blueprint, size * 2**30) for size in SIZES)
        lines.append(f"| {source.rsplit('/', 1)[-1]} ({blueprint.adapter.kind}) | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(base: Base, blueprint: Blueprint, machine: int) -> str:
    """Checkpointing only where rows of 1,024 need it; then the longest rows, as many as fit, the highest rank."""
    usable = usable_memory(machine, "gpu")
    section = replace(blueprint.training, dtype="bfloat16", row_length=LENGTHS[1], batch_size=1)
    rank = blueprint.adapter.rank

    def fits(section: TrainingSection, rank: int) -> bool:
        spec = base.spec(replace(blueprint.adapter, rank=rank))
        return base.memory(spec, section, "gpu").peak <= usable

    if not fits(section, rank):
        section = replace(section, gradient_checkpointing=True)
    lengths = [length for length in LENGTHS if length <= base.shape.context]
    lengths = [length for length in lengths if fits(replace(section, row_length=length), rank)]
    if not lengths:
        return "too small"
    section = replace(section, row_length=lengths[-1])
    section = replace(section, batch_size=max(rows for rows in ROWS if fits(replace(section, batch_size=rows), rank)))
    rank = max(value for value in (*RANKS, rank) if fits(section, value))
    checkpointing = ", checkpointing" if section.gradient_checkpointing else ""
    return f"{section.batch_size} × {section.row_length}, rank {rank}{checkpointing}"


if __name__ == "__main__":
    main()
