"""README.md of an export: a model card in the form of the Hugging Face Hub.

The front matter follows the Hub's specification (hub-docs, modelcard.md). Every sentence and figure comes from a
record: what is not known is said to be unknown, or left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chrysalis_mlx import __version__
from chrysalis_mlx.evaluation.results import Evaluation
from chrysalis_mlx.export.lineage.base_model import HUB
from chrysalis_mlx.export.lineage.evaluated import told
from chrysalis_mlx.export.lineage.lineage import Lineage, place, tags
from chrysalis_mlx.export.lineage.markdown import table

CARD = "README.md"

_MARKDOWN = re.compile(r"([\\`*_\[\]|<>#~$])")
_LINK = re.compile(r"https?://[^\s()<>|\\]+")
_MODEL, _ADAPTER = "model-", "adapter.gguf"
_NO_LICENCE = "none stated"
_KINDS = {"lora": "LoRA adapter", "dora": "DoRA adapter", "full": "all weights of the chosen layers"}

# Heading, the key of a file's entry in verification.json, and how its value is written.
_COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("size", "bytes", lambda value: f"{value / 1e6:,.1f} MB"),
    ("bits per weight", "bits_per_weight", lambda value: f"{value:.2f}"),
    ("KL to the trained model", "kl", lambda value: f"{value:.2e}"),
    ("perplexity", "perplexity", lambda value: f"{value:.3f}"),
    ("same most likely token", "top1", lambda value: f"{value:.1%}"),
)


def model_card(
    lineage: Lineage,
    files: Sequence[Path],
    *,
    verification: Mapping[str, Any] | None = None,
    evaluation: Evaluation | None = None,
    fused: str | None = "../fused",
    use: Sequence[str] | None = None,
) -> str:
    """The text of the card.

    Args:
        files: what lies beside it; the GGUF that the examples use is the last `model-*.gguf`.
        verification: content of verification.json; its entries are told by the keys that they have.
        evaluation: of the run.
        fused: where the safetensors lie, from the card; None where there are none.
        use: the lines of the section Use; None: how the files beside the card are run.
    """
    sections = (
        _what(lineage, files),
        _material(lineage),
        _training(lineage),
        told(evaluation),
        _verification(verification),
        _use(lineage, files, fused) if use is None else ("## Use", "", *use, ""),
        _licences(lineage),
        _limits(lineage, files, evaluation),
    )
    body = "\n".join(line for section in sections for line in section)
    return f"---\n{_front_matter(lineage, files)}---\n\n{body}"


def _front_matter(lineage: Lineage, files: Sequence[Path]) -> str:
    import yaml

    base, licence, data = lineage.base, lineage.base.licence, lineage.data_on_hub
    front: dict[str, Any] = {
        "base_model": base.hub.id if base.hub else None,
        "base_model_relation": _relation(lineage, files) if base.hub else None,
        "license": licence.id if licence else "other",
        "license_name": licence.name if licence else None,
        "license_link": licence.link if licence else None,
        "language": list(base.languages),
        "datasets": [data.id] if data else list(base.datasets) if not lineage.adapter else [],
        "pipeline_tag": "text-generation",
        "library_name": "gguf" if _is_gguf(files) else "transformers" if _merged(files) else "peft",
        "tags": [tag for tag in tags(lineage) if tag != "text-generation" and (tag != "gguf" or _is_gguf(files))],
    }
    known = {name: value for name, value in front.items() if value is not None and value != []}
    return yaml.safe_dump(known, sort_keys=False, width=1000)


def _relation(lineage: Lineage, files: Sequence[Path]) -> str:
    """As the Hub has it: what this is to its base."""
    if lineage.adapter is None:
        return "quantized"
    return "finetune" if _merged(files) else "adapter"


def _what(lineage: Lineage, files: Sequence[Path]) -> Iterator[str]:
    base, adapter, blueprint = lineage.base, lineage.adapter, lineage.blueprint
    yield f"# {_text(lineage.name)}"
    yield ""
    if blueprint and blueprint.description:
        yield f"{_text(blueprint.description)}"
        yield ""
    name = f"[{_text(base.hub.id)}]({HUB}/{base.hub.id})" if base.hub else f"{_text(base.name)}"
    if adapter is None:
        told = f"{name}, converted to GGUF"
    elif not _merged(files):
        told = f"A {_KINDS[adapter.kind]} for {name}{', as GGUF' if _is_gguf(files) else ', trained'}"
    else:
        converted = " and converted to GGUF" if _models(files) else ""
        told = f"{name}, tuned ({_KINDS[adapter.kind]}, merged into the weights){converted}"
    yield f"{told} with chrysalis-mlx {__version__}."
    if base.hub:
        yield f"The base is at commit `{base.hub.commit}`."
    else:
        yield "The base was a local copy; where on the Hub it lies is not recorded."
    yield ""
    if _is_gguf(files):
        yield "Every GGUF file carries its lineage: `chrysalis-mlx lineage FILE` prints it."
        yield ""


def _material(lineage: Lineage) -> Iterator[str]:
    if lineage.run is None:
        return
    yield "## Made from"
    yield ""
    for what, sha256 in lineage.material.items():
        yield f"- {what}: sha256 `{sha256}`"
    if lineage.data_on_hub:
        yield f"- its rows are the dataset {lineage.data_on_hub.id} at commit `{lineage.data_on_hub.commit}`"
    yield ""
    if lineage.repositories:
        yield "Files and tokens are those that the corpus took; what is kept out of the training is among them."
        yield ""
        expressed = lineage.run.stage("corpus").get("report", {}).get("repositories", {})
        rows = [
            (
                _text(item.name),
                _code(place(item)),
                *(_number(expressed.get(item.name, {}).get(what, 0)) for what in ("expressed", "tokens")),
                _text(item.licence or _NO_LICENCE),
            )
            for item in lineage.repositories
        ]
        yield from table(("repository", "at", ">files", ">tokens", "licence"), rows)


def _training(lineage: Lineage) -> Iterator[str]:
    adapter = lineage.adapter
    if adapter is None:
        return
    yield "## Training"
    yield ""
    if lineage.run is None:
        yield "The adapter was not trained in a run of chrysalis-mlx; this is what its files say."
        yield ""
    rows: list[tuple[object, ...]] = [
        ("kind", adapter.kind),
        ("rank", adapter.rank),
        ("alpha", None if adapter.alpha is None else f"{adapter.alpha:g}"),
        *_trained(lineage),
        ("sha256 of the adapter", adapter.sha256 and _code(adapter.sha256)),
    ]
    yield from table(("", ""), [row for row in rows if row[1] is not None])


def _trained(lineage: Lineage) -> Iterator[tuple[object, ...]]:
    """What the run and its blueprint say of the training."""
    run, blueprint, figures = lineage.run, lineage.blueprint, lineage.training
    if run is None or blueprint is None:
        return
    section, report, layers = blueprint.training, run.stage("train").get("report", {}), blueprint.adapter.layers
    yield "layers", layers if layers == "all" else f"the {blueprint.adapter.side} {layers}"
    yield "trained parameters", _number(report.get("adapter_parameters"))
    yield "steps", _number(figures.get("steps"))
    yield "the adapter is of step", _number(figures.get("best_step"))
    yield "tokens learned from", _number(figures.get("tokens"))
    yield "tokens in a row", section.row_length
    yield "rows in a step", section.batch_size * section.gradient_accumulation
    yield "optimizer", section.optimizer
    yield "peak learning rate", f"{section.learning_rate:g}, {section.schedule}"
    yield "training loss at the end", _loss(figures.get("train_loss"))
    yield "validation loss at the end", _loss(figures.get("valid_loss"))
    yield "validation loss of the adapter", _loss(figures.get("best_loss"))
    yield "seed", section.seed
    yield "backend", report.get("backend")
    yield "dtype of the base", report.get("dtype")


def _verification(verification: Mapping[str, Any] | None) -> Iterator[str]:
    entries = _entries(verification or {})
    if not entries:
        return
    columns = [column for column in _COLUMNS if any(_is_number(entry.get(column[1])) for entry in entries)]
    rows = []
    for entry in entries:
        figures = [written(entry[key]) if _is_number(entry.get(key)) else "" for _, key, written in columns]
        rows.append((f"`{entry['file']}`", *figures, _verdict(entry)))
    yield "## Verification"
    yield ""
    yield "Each file was opened in llama.cpp and compared with the model that was trained, on held-out texts."
    yield "KL is in nats per token. `verification.json` has every figure."
    yield ""
    yield from table(("file", *(f">{name}" for name, _, _ in columns), "verdict"), rows)


def _entries(verification: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What verification.json says of each file."""
    found = verification.get("gguf") or verification.get("files") or {}
    entries = list(found.values()) if isinstance(found, Mapping) else list(found)
    return [entry for entry in entries if isinstance(entry, Mapping) and "file" in entry]


def _verdict(entry: Mapping[str, Any]) -> str:
    if entry.get("failures"):
        return _text("; ".join(map(str, entry["failures"])))
    return "verified" if entry.get("verified") else "not verified"


def _use(lineage: Lineage, files: Sequence[Path], fused: str | None) -> Iterator[str]:
    names, models = {file.name for file in files}, _models(files)
    yield "## Use"
    yield ""
    yield "```sh"
    if "Modelfile" in names:
        own = re.sub(r"[^a-z0-9._-]+", "-", lineage.name.lower()).strip("-.") or "model"
        yield f"ollama create {own} -f Modelfile && ollama run {own}"
    if models:
        yield f"llama-server -m {models[-1]}"
    if _ADAPTER in names:
        yield f"llama-server -m BASE.gguf --lora {_ADAPTER}   # BASE.gguf: the base model, converted to GGUF"
    if fused:
        yield f'mlx_lm.generate --model {fused} --prompt "..."   # the safetensors that were written with these files'
    yield "```"
    yield ""


def _licences(lineage: Lineage) -> Iterator[str]:
    yield "## Licences"
    yield ""
    licence = lineage.base.licence
    if licence is None:
        yield "The licence of the base model is not known here. Find it out before you pass this model on."
    else:
        link = f" ({licence.link})" if licence.link and _LINK.fullmatch(licence.link) else ""
        yield f"The base model's licence is {_text(licence.title)}{link}, as {_text(licence.told_by)} says."
    if lineage.repositories:
        counts: dict[str, int] = {}
        for item in lineage.repositories:
            counts[item.licence or _NO_LICENCE] = counts.get(item.licence or _NO_LICENCE, 0) + 1
        listed = ", ".join(f"{_text(name)} ({number})" for name, number in sorted(counts.items()))
        yield f"The repositories state these, as far as their files were recognized: {listed}."
        yield "Whether they reach a model that was trained on the texts is not answered here."
    elif lineage.run is not None:
        yield "Under which licence the training data stand is not recorded."
    yield ""


def _limits(lineage: Lineage, files: Sequence[Path], evaluation: Evaluation | None) -> Iterator[str]:
    yield "## Limits"
    yield ""
    if evaluation:
        yield "- Perplexity and copying were measured, and nothing else: no benchmark, no test of safety."
    else:
        yield "- No benchmark and no test of safety was done."
    yield "- What the base model gets wrong, this one may get wrong too."
    if lineage.run is not None:
        yield "- It was trained on the texts named above and may repeat passages of them."
    if _models(files):
        yield "- Files of few bits per weight differ more from the trained model; the verification says by how much."
    yield ""


def _models(files: Sequence[Path]) -> list[str]:
    return [file.name for file in files if file.name.startswith(_MODEL) and file.suffix == ".gguf"]


def _is_gguf(files: Sequence[Path]) -> bool:
    return any(file.suffix == ".gguf" for file in files)


def _merged(files: Sequence[Path]) -> bool:
    """Whether the tuned weights themselves are there, and not an adapter alone."""
    return bool(_models(files)) or any(
        file.suffix == ".safetensors" and not file.name.startswith("adapter") for file in files
    )


def _text(value: str) -> str:
    """A stranger's text on one line, which Markdown shows as it is."""
    return _MARKDOWN.sub(r"\\\1", " ".join(value.split()))


def _code(value: str) -> str:
    """A stranger's text as code in a table."""
    plain = " ".join(value.replace("`", "'").replace("|", r"\|").split())
    return f"`{plain}`"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: object) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None


def _loss(value: object) -> str | None:
    return f"{value:.4f}" if isinstance(value, float) else None
