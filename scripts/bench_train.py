"""Trains the same adapter on the same rows: with this package, with mlx_lm.lora, and with transformers and PEFT.

Every run is a process of its own, and the arms take turns. A run trains `--steps` optimizer steps of `--batch` rows of
the blueprint's row length; the first `--warm-up` are not counted, because kernels are compiled in them.

    text  chat          rows of the genome's documents, and its conversations with the prompts masked
    mlx  mlx_lm         this package and `mlx_lm.lora`, both on MLX with the same BLAS
    torch  peft         this package and a plain loop around transformers and PEFT, both on torch
    lora  dora          the adapter: rank 8, alpha 16, on every linear layer

Tokens are those that have a target, each as its own program counts them. `--vocabulary N` trains instead a narrow
random model with N tokens on rows of 1,024, and compares memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RANK, ALPHA, RATE, SEED = 8, 16.0, 5e-4, 0
FORMS = {"text": "text", "chat": "messages"}


class Clock:
    """Tokens and seconds of the steps after the warm-up."""

    def __init__(self, warm_up: int) -> None:
        self._warm_up, self._began = warm_up, time.perf_counter()
        self.tokens, self.seconds, self.losses = 0, [], []  # type: tuple[int, list[float], list[float]]

    def tick(self, tokens: int, loss: float) -> None:
        now = time.perf_counter()
        self.losses.append(loss)
        if len(self.losses) > self._warm_up:
            self.tokens += tokens
            self.seconds.append(now - self._began)
        self._began = now

    def report(self, peak: int) -> dict[str, Any]:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return {
            "tokens_per_second": self.tokens / sum(self.seconds),
            "tokens": self.tokens,
            "step_seconds": statistics.mean(self.seconds),
            "peak_memory": peak,
            "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
            "loss": self.losses[-1],
        }


def ours(backend: str, options: argparse.Namespace) -> dict[str, Any]:
    """This package's engine on packed rows, through everything that its training loop does in a step."""
    from chrysalis_mlx import backends
    from chrysalis_mlx.adapters.spec import initialize, resolve_adapter
    from chrysalis_mlx.batches.order import PackedRows
    from chrysalis_mlx.batches.tokens import read_segments
    from chrysalis_mlx.models.directory import ModelDirectory

    model = ModelDirectory.open(options.model)
    linears = model.layer_linears()
    spec = resolve_adapter(options.kind, RANK, ALPHA, "all", ["all-linear"], linears)
    arrays = initialize(spec, model.checkpoint(), SEED)
    engine = backends.load(backend)(options.model, spec, arrays)
    segments = read_segments(options.data / "train.jsonl", model.tokenizer, options.row_length)
    rows = PackedRows(segments, options.row_length, "0" * 64, SEED)
    clock = Clock(options.warm_up)
    for step in range(options.steps):
        result = engine.step(rows.micro_batches(step, options.batch, 1), RATE)
        clock.tick(result.targets, result.loss)
    return clock.report(engine.peak_memory())


def mlx_lm(options: argparse.Namespace) -> dict[str, Any]:
    """`mlx_lm.lora` as its command line runs it, but for the BLAS, which is loaded before MLX as ours is."""
    from chrysalis_mlx.backends.mlx import blas

    blas.preload()
    import mlx.core as mx
    from mlx_lm import lora
    from mlx_lm.tuner.callbacks import TrainingCallback

    clock = Clock(options.warm_up)

    class Listener(TrainingCallback):  # type: ignore[misc]
        seen = 0

        def on_train_loss_report(self, info: dict[str, Any]) -> None:
            if len(clock.losses) == options.steps:
                return  # the last step validates
            clock.tick(int(info["trained_tokens"]) - self.seen, float(info["train_loss"]))
            self.seen = int(info["trained_tokens"])

    keys = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    with tempfile.TemporaryDirectory() as adapters:
        arguments = {
            **lora.CONFIG_DEFAULTS,
            "model": str(options.model),
            "data": str(options.data),
            "train": True,
            "fine_tune_type": options.kind,
            "optimizer": "adamw",
            "learning_rate": RATE,
            "batch_size": options.batch,
            "iters": options.steps + 1,
            "max_seq_length": options.row_length,
            "num_layers": -1,
            "lora_parameters": {"rank": RANK, "scale": ALPHA / RANK, "dropout": 0.0, "keys": keys},
            "mask_prompt": options.form == "chat",
            "steps_per_report": 1,
            "steps_per_eval": options.steps + 2,
            "val_batches": 1,
            "adapter_path": adapters,
            "seed": SEED,
        }
        from types import SimpleNamespace

        lora.get_reporting_callbacks = lambda *_, **__: Listener()
        lora.run(SimpleNamespace(**arguments))
    return clock.report(int(mx.get_peak_memory()))


def peft(options: argparse.Namespace) -> dict[str, Any]:
    """The loop that one writes around transformers and PEFT: padded batches, the model's own loss, AdamW."""
    import numpy as np
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    from chrysalis_mlx.batches.tokens import read_segments
    from chrysalis_mlx.models.directory import ModelDirectory

    tokenizer = ModelDirectory.open(options.model).tokenizer
    segments = read_segments(options.data / "train.jsonl", tokenizer, options.row_length)
    base = transformers.AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules="all-linear",
        use_dora=options.kind == "dora",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=RATE, weight_decay=0.0)
    order = np.random.default_rng(SEED).permutation(len(segments))
    clock = Clock(options.warm_up)
    for step in range(options.steps):
        chosen = [segments[order[(step * options.batch + row) % len(order)]] for row in range(options.batch)]
        longest = max(len(one.tokens) for one in chosen)
        tokens = torch.zeros((options.batch, longest), dtype=torch.long)
        labels, attention = torch.full_like(tokens, -100), torch.zeros_like(tokens)
        for row, one in enumerate(chosen):
            length = len(one.tokens)
            tokens[row, :length] = torch.from_numpy(one.tokens)
            attention[row, :length] = 1
            labels[row, :length] = torch.from_numpy(np.where(one.supervised, one.tokens, -100)).long()
        loss = model(input_ids=tokens, attention_mask=attention, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.tick(int((labels[:, 1:] >= 0).sum()), loss.item())
    return clock.report(0)


ARMS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "mlx": lambda options: ours("mlx", options),
    "mlx_lm": mlx_lm,
    "torch": lambda options: ours("torch", options),
    "peft": peft,
}


def corpus(options: argparse.Namespace, work: Path) -> Path:
    """The blueprint's corpus of the genome, made by the program itself."""
    run = work / "run"
    command = [sys.executable, "-m", "chrysalis_mlx", "corpus", run, "--genome", options.genome, "--model"]
    subprocess.run(
        [*command, options.model, "--blueprint", options.blueprint, "--json"], check=True, stdout=subprocess.DEVNULL
    )
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    options.model = Path(record["model"]["directory"])
    return run / "corpus"


def narrow_model(directory: Path, vocabulary: int) -> Path:
    """A random llama, 2 layers of 64, with a large vocabulary; and rows of more than 1,024 tokens for it."""
    import transformers

    from tests import tiny

    model = tiny.tiny_llama(directory / "model", vocab_size=vocabulary, max_position_embeddings=2048)
    transformers.utils.logging.disable_progress_bar()
    words = tiny.TEXT.split()
    data = directory / "text"
    data.mkdir()
    for side in ("train", "valid", "test"):
        lines = [json.dumps({"text": " ".join(words[at:] + words[:at])}) for at in range(40)]
        (data / f"{side}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return model


def run(arm: str, form: str, kind: str, options: argparse.Namespace, data: Path) -> dict[str, Any]:
    """One run in a process of its own."""
    command = [sys.executable, __file__, "--worker", arm, "--form", form, "--kind", kind, "--model", options.model]
    command += ["--data", data, "--row-length", options.row_length, "--batch", options.batch]
    command += ["--steps", options.steps, "--warm-up", options.warm_up]
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{arm} on {form} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    shown = {key: round(value, 2) if isinstance(value, float) else value for key, value in result.items()}
    print(json.dumps({"arm": arm, "form": form, "kind": kind, **shown}), flush=True)
    return result


def medians(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """The median of every figure of every arm."""
    return {
        name: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for name, results in found.items()
    }


def ratios(middle: dict[str, dict[str, float]]) -> Iterator[tuple[str, float]]:
    """Ours by theirs, where both were run."""
    for ours, theirs in (("mlx", "mlx_lm"), ("torch", "peft")):
        for form in FORMS:
            pair = [middle.get(f"{arm} {form} lora") for arm in (ours, theirs)]
            if pair[0] and pair[1]:
                yield (
                    f"{form}: tokens/s, {ours} by {theirs}",
                    pair[0]["tokens_per_second"] / pair[1]["tokens_per_second"],
                )
                key = "peak_memory" if ours == "mlx" else "resident"
                yield f"{form}: {key}, {ours} by {theirs}", pair[0][key] / pair[1][key]
    for arm in ("mlx", "mlx_lm"):
        pair = [middle.get(f"{arm} text {kind}") for kind in ("dora", "lora")]
        if pair[0] and pair[1]:
            yield f"step of DoRA by LoRA, {arm}", pair[0]["step_seconds"] / pair[1]["step_seconds"]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("genome", type=Path, nargs="?")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--blueprint", default="smollm2-135m-instruct")
    parser.add_argument("--batch", type=int, default=4, help="rows in a step; 4 is mlx_lm.lora's own default")
    parser.add_argument("--row-length", type=int, default=576)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--kinds", nargs="+", default=["lora", "dora"], choices=["lora", "dora"])
    parser.add_argument("--vocabulary", type=int)
    parser.add_argument("--worker", choices=list(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--form", help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.worker:
        print(json.dumps(ARMS[options.worker](options)))
        return
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        if options.vocabulary:
            options.model, options.row_length, options.forms = narrow_model(work, options.vocabulary), 1024, ["text"]
            options.arms, options.kinds = ["mlx", "mlx_lm"], ["lora"]
            data = {"text": work / "text"}
        else:
            made = corpus(options, work)
            data = {form: made / FORMS[form] for form in options.forms}
        found: dict[str, list[dict[str, Any]]] = {}
        for _ in range(options.repeats):
            for form in options.forms:
                for kind in options.kinds if form == "text" else options.kinds[:1]:
                    for arm in options.arms if kind == "lora" else [arm for arm in options.arms if "mlx" in arm]:
                        found.setdefault(f"{arm} {form} {kind}", []).append(run(arm, form, kind, options, data[form]))
    middle = medians(found)
    print(
        json.dumps({"medians": middle, "ratios": {name: round(value, 3) for name, value in ratios(middle)}}, indent=1)
    )


if __name__ == "__main__":
    main()
