"""Trains one model on the same number of tokens of a genome in several orders, and compares held-out perplexity.

Arms:
    file-order       the whole genome as text, from its first file on
    genome-shuffled  the whole genome as text, documents in random order
    blueprint        what the blueprint expresses, in its framings and order
    blueprint-text   what the blueprint expresses, as text only

The documents to measure on are those that the blueprint's split keeps back (test and valid); what shares a 13-gram with
one of them is taken out of every arm. A seed decides the initial adapter and the draw; everything else is the
blueprint's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from chrysalis_mlx import backends
from chrysalis_mlx.adapters.spec import initialize
from chrysalis_mlx.backends.base import Engine
from chrysalis_mlx.backends.measure import measure
from chrysalis_mlx.batches.order import PackedRows
from chrysalis_mlx.batches.packing import Batch
from chrysalis_mlx.batches.rows import Row, read_rows
from chrysalis_mlx.batches.tokens import Segment, segments
from chrysalis_mlx.blueprint.adapter import adapter_spec
from chrysalis_mlx.blueprint.library import find_blueprint
from chrysalis_mlx.blueprint.load import load_blueprint
from chrysalis_mlx.blueprint.schema import Blueprint, FramingSection, MixSection
from chrysalis_mlx.corpus.build import corpus_of_genome
from chrysalis_mlx.corpus.contamination import NgramIndex, shares_ngram
from chrysalis_mlx.corpus.document import Document
from chrysalis_mlx.corpus.frame.framer import Framer
from chrysalis_mlx.corpus.write import write_corpus
from chrysalis_mlx.genome.text.format import read_genome
from chrysalis_mlx.machine import choose_backend
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.models.source import resolve_model
from chrysalis_mlx.training.loop import run_training
from chrysalis_mlx.training.stage import optimizer_settings

TEXT = FramingSection(mix=MixSection(text=1.0))


class Bench:
    """What all trainings share: model, blueprint, corpora and the held-out batches."""

    def __init__(self, arguments: argparse.Namespace, work: Path) -> None:
        self.model: ModelDirectory = resolve_model(arguments.model)
        self.blueprint: Blueprint = load_blueprint(find_blueprint(arguments.blueprint))
        self.tokens: int = arguments.tokens
        self.backend = choose_backend(arguments.backend).name
        self.work = work
        self.genome: Path = arguments.genome
        self.corpus("blueprint", self.blueprint)
        files = json.loads((work / "blueprint" / "expression.json").read_text(encoding="utf-8"))["files"]
        held_out = {(file["repository"], file["path"]) for file in files if file.get("side") in ("valid", "test")}
        documents = [Document.of(file) for file in read_genome(self.genome)]
        kept_back = [item for item in documents if (item.repository, item.path) in held_out]
        ngram = self.blueprint.split.ngram
        touched = shares_ngram(
            (item.text for item in documents), NgramIndex.of((item.text for item in kept_back), ngram)
        )
        self.documents = [item for item, shares in zip(documents, touched, strict=True) if not shares]
        self.measured = self._batches(kept_back, arguments.rows)

    def corpus(self, name: str, blueprint: Blueprint) -> list[Row]:
        """The training rows of a blueprint, built once."""
        directory = self.work / name
        if not directory.exists():
            made = corpus_of_genome(self.genome, blueprint, self.model.tokenizer)
            write_corpus(made, directory, self.model.tokenizer)
        return read_rows(directory / "train.jsonl")

    def arm(self, name: str, seed: int) -> tuple[list[Segment], str]:
        """The first `tokens` tokens of an arm, and the order in which they are trained on."""
        chance = np.random.Generator(np.random.PCG64(seed))
        if name in ("file-order", "genome-shuffled"):
            documents = self.documents
            if name == "genome-shuffled":
                documents = [documents[index] for index in chance.permutation(len(documents))]
            framer = Framer(TEXT, self.model.tokenizer, self.row_length, seed=seed)
            rows: Iterator[Row] = (row for item in documents for row in framer.frame_once(item))
            return self._first(rows), "curriculum" if name == "file-order" else "shuffled"
        blueprint = self.blueprint if name == "blueprint" else replace(self.blueprint, framing=TEXT)
        found = self.corpus(name, blueprint)
        if blueprint.order.kind == "shuffled":
            found = [found[index] for index in chance.permutation(len(found))]
        return self._first(iter(found)), blueprint.order.kind

    @property
    def row_length(self) -> int:
        return self.blueprint.training.row_length

    def train(self, name: str, seed: int) -> dict[str, Any]:
        """Train on an arm; what it was and the perplexity after it."""
        found, kind = self.arm(name, seed)
        section = self.blueprint.training
        rows = PackedRows(found, self.row_length, "0" * 64, seed, kind=kind, replay=self.blueprint.order.replay)
        per_step = section.batch_size * section.gradient_accumulation
        steps = -(-len(rows) // per_step)
        section = replace(section, steps=steps, seed=seed, validate_every=steps, checkpoint_every=steps)
        adapter = self.blueprint.adapter
        weights = self.model.layer_weights() if adapter.kind == "full" else None
        spec = adapter_spec(adapter, self.model.layer_linears(), weights)
        engine = backends.load(self.backend)(
            self.model.path,
            spec,
            initialize(spec, self.model.checkpoint(), seed),
            dtype=section.dtype,
            optimizer=optimizer_settings(section),
            gradient_checkpointing=section.gradient_checkpointing,
            seed=seed,
        )
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=self.work) as directory:
            run_training(engine, rows, self.measured[:1], section, Path(directory), on_checkpoint=lambda _: None)
        return {
            "arm": name,
            "seed": seed,
            "steps": steps,
            "tokens": sum(len(segment.tokens) for segment in found),
            "targets": sum(int(segment.supervised.sum()) for segment in found),
            "seconds": round(time.perf_counter() - began, 1),
            "perplexity": self.perplexity(engine),
        }

    def perplexity(self, engine: Engine) -> float:
        return round(float(np.exp(measure(engine, self.measured).loss)), 4)

    def base_perplexity(self) -> float:
        return self.perplexity(backends.load(self.backend)(self.model.path, dtype="float32"))

    def _first(self, rows: Iterator[Row]) -> list[Segment]:
        """Segments until there are `tokens` tokens; the one that goes beyond is left out, and the search ends."""
        found: list[Segment] = []
        total = 0
        for row in rows:
            segment = segments([row], self.model.tokenizer)[0]
            if total + len(segment.tokens) > self.tokens:
                break
            found.append(segment)
            total += len(segment.tokens)
        return found

    def _batches(self, documents: list[Document], limit: int | None) -> list[Batch]:
        framer = Framer(TEXT, self.model.tokenizer, self.row_length, seed=0)
        rows = [row for item in documents for row in framer.frame_once(item)]
        packed = PackedRows(segments(rows, self.model.tokenizer), self.row_length, "0" * 64, 0)
        return packed.in_order(self.blueprint.training.batch_size, limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("genome", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--blueprint", default="smollm2-135m-instruct")
    parser.add_argument("--tokens", type=int, default=30_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", default=["file-order", "blueprint"])
    parser.add_argument("--rows", type=int, help="held-out rows to measure on; all by default")
    parser.add_argument("--backend", default="auto", choices=["auto", "mlx", "torch"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(arguments, Path(directory))
        targets = sum(batch.target_count for batch in bench.measured)
        settings = {"backend": bench.backend, "held_out_targets": targets, **asdict(bench.blueprint.training)}
        print(json.dumps({"settings": settings, "base_perplexity": bench.base_perplexity()}), flush=True)
        found: dict[str, list[float]] = {}
        for seed in range(arguments.seeds):
            for arm in arguments.arms:
                result = bench.train(arm, seed)
                found.setdefault(arm, []).append(result["perplexity"])
                print(json.dumps(result), flush=True)
    for arm, values in found.items():
        print(f"{arm:16} perplexity {statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    main()
