"""The card of a repository: the export's, made anew for the files that are sent and for how they are run from there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from chrysalis_mlx.evaluation.results import read_evaluation
from chrysalis_mlx.export.lineage.card import model_card
from chrysalis_mlx.export.lineage.lineage import Lineage
from chrysalis_mlx.hub.files import File, Kind, folder_of, is_of_this_adapter
from chrysalis_mlx.run import Run

_MODEL = "model-"
_PROMPT = '--prompt "..."'


def repository_card(
    run: Run, lineage: Lineage, repository: str, kinds: Sequence[Kind], files: Sequence[File], *, on_main: bool = True
) -> str:
    """The text of README.md.

    Args:
        repository: `owner/name`.
        files: the others of the repository.
        on_main: whether they go to the main branch, which is what Ollama and llama.cpp take.
    """
    paths = [Path(file.path) for file in files]
    evaluated = is_of_this_adapter(run, "eval")
    verification = run.path("export", "verification.json")
    return model_card(
        lineage,
        paths,
        verification=json.loads(verification.read_text(encoding="utf-8")) if "gguf" in kinds else None,
        evaluation=read_evaluation(run.path("evaluation.json")) if evaluated else None,
        fused=None,
        use=[*_use(lineage, repository, kinds, paths, on_main)],
    )


def front_matter(card: str) -> str:
    """The YAML at the top of a card, without its rules."""
    return card.removeprefix("---\n").partition("\n---\n")[0] + "\n"  # a value may end in three hyphens, too


def gguf_types(files: Sequence[Path]) -> list[str]:
    """The types of the models among the files, as Ollama and llama.cpp call them: Q4_K_M of model-Q4_K_M.gguf."""
    return [file.stem.removeprefix(_MODEL) for file in files if file.name.startswith(_MODEL) and file.suffix == ".gguf"]


def commands(repository: str, type_name: str) -> tuple[str, str]:
    """What runs a GGUF file of a repository's main branch."""
    return f"ollama run hf.co/{repository}:{type_name}", f"llama-server -hf {repository}:{type_name}"


def _use(
    lineage: Lineage, repository: str, kinds: Sequence[Kind], files: Sequence[Path], on_main: bool
) -> Iterator[str]:
    base = lineage.source if lineage.base.hub else "BASE"
    yield "```sh"
    if types := gguf_types(files):
        if on_main:
            yield from commands(repository, types[-1])
        yield _download(repository)
        yield f"llama-server -m {_MODEL}{types[-1]}.gguf"
        if Path("Modelfile") in files:
            yield "ollama create NAME -f Modelfile   # with its system prompt, stops and sampling"
    if "fused" in kinds:
        yield from _use_fused(repository, folder_of("fused", kinds))
    if "adapter" in kinds:
        yield from _use_adapter(repository, folder_of("adapter", kinds), base, files)
    yield "```"
    yield ""
    python = [*_python(lineage, repository, kinds, base)]
    yield from ["```python", *python, "```"] if python else []


def _use_fused(repository: str, folder: str) -> Iterator[str]:
    if not folder:
        yield f"mlx_lm.generate --model {repository} {_PROMPT}"
        return
    yield _download(repository, folder)
    yield f"mlx_lm.generate --model {folder.rstrip('/')} {_PROMPT}"


def _use_adapter(repository: str, folder: str, base: str, files: Sequence[Path]) -> Iterator[str]:
    yield _download(repository, folder)
    yield f"mlx_lm.generate --model {base} --adapter-path {folder}mlx {_PROMPT}"
    if Path(f"{folder}adapter.gguf") in files:
        yield f"llama-server -m BASE.gguf --lora {folder}adapter.gguf   # BASE.gguf: the base model, converted to GGUF"


def _download(repository: str, folder: str = "") -> str:
    only = f' --include "{folder}*"' if folder else ""
    return f"hf download {repository}{only} --local-dir ."


def _python(lineage: Lineage, repository: str, kinds: Sequence[Kind], base: str) -> Iterator[str]:
    """How transformers and PEFT load it."""
    if "fused" in kinds:
        folder = folder_of("fused", kinds).rstrip("/")
        inside = f', subfolder="{folder}"' if folder else ""
        yield "from transformers import AutoModelForCausalLM"
        yield ""
        yield f'model = AutoModelForCausalLM.from_pretrained("{repository}"{inside})'
    elif "adapter" in kinds:
        folder = folder_of("adapter", kinds).rstrip("/")
        inside = f', subfolder="{folder}"' if folder else ""
        commit = f', revision="{lineage.base.hub.commit}"' if lineage.base.hub else ""
        yield "from peft import PeftModel"
        yield "from transformers import AutoModelForCausalLM"
        yield ""
        yield f'base = AutoModelForCausalLM.from_pretrained("{base}"{commit})'
        yield f'model = PeftModel.from_pretrained(base, "{repository}"{inside})'
