"""The model card: what the Hub reads of it, and what people do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData

from chrysalis_mlx import __version__
from chrysalis_mlx.evaluation.results import Change, Evaluation
from chrysalis_mlx.export.lineage.base_model import BaseModel, HubSnapshot, Licence
from chrysalis_mlx.export.lineage.card import model_card
from chrysalis_mlx.export.lineage.lineage import Adapter, Lineage
from chrysalis_mlx.genome.manifest import RepositoryRecord, read_manifest
from chrysalis_mlx.run import Run, sha256_file
from tests.export.finished import ENTRIES, EVALUATION, finished

__all__ = ["finished"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = [Path("model-F16.gguf"), Path("model-Q4_K_M.gguf"), Path("Modelfile")]
ON_HUB = BaseModel("Tiny-1M", HubSnapshot("owner/Tiny-1M", COMMIT), "owner", Licence("mit", "its README.md"), ("en",))


@pytest.fixture
def lineage(finished: Path) -> Lineage:
    return Lineage.of_run(Run.open(finished / "run"))


def card(lineage: Lineage, files: Sequence[Path] = FILES, **known: Any) -> str:
    return model_card(lineage, files, **known)


def front(text: str) -> dict[str, Any]:
    """The front matter, as the Hub's own library reads it; the same after it was written again."""
    data = ModelCard(text).data
    assert isinstance(data, ModelCardData)
    read: dict[str, Any] = data.to_dict()
    assert ModelCard(f"---\n{data.to_yaml()}\n---\n").data.to_dict() == read
    return read


def section(text: str, name: str) -> list[str]:
    return [line for line in text.split(f"## {name}\n")[1].split("\n## ")[0].splitlines() if line]


def rows(lines: Sequence[str]) -> list[list[str]]:
    """The cells of a table, without its rule."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]


def test_the_front_matter_of_a_local_base(lineage: Lineage, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card(lineage), encoding="utf-8")
    loaded = ModelCard.load(tmp_path / "README.md")
    assert loaded.data.to_dict() == front(card(lineage))
    assert front(card(lineage)) == {
        "license": "other",
        "license_name": "tiny-licence",
        "license_link": "https://example.org/licence",
        "language": ["en", "no"],
        "pipeline_tag": "text-generation",
        "library_name": "gguf",
        "tags": ["gguf", "dora", "chrysalis-mlx"],
    }
    assert "where on the Hub it lies is not recorded" in card(lineage)


@pytest.mark.parametrize(
    ("adapter", "files", "relation"),
    [
        (Adapter("lora", 8, 16.0), FILES, "finetune"),
        (Adapter("full"), FILES, "finetune"),
        (Adapter("lora", 8, 16.0), [Path("adapter.gguf")], "adapter"),
        (None, FILES, "quantized"),
    ],
)
def test_what_it_is_to_a_base_on_the_hub(adapter: Adapter | None, files: Sequence[Path], relation: str) -> None:
    text = card(Lineage(ON_HUB, {}, adapter), files)
    found = front(text)
    assert (found["base_model"], found["base_model_relation"], found["license"]) == ("owner/Tiny-1M", relation, "mit")
    assert "[owner/Tiny-1M](https://huggingface.co/owner/Tiny-1M)" in text
    assert f"The base is at commit `{COMMIT}`." in text


def test_data_sets_are_named_where_they_are_known() -> None:
    base = dataclasses.replace(ON_HUB, datasets=("owner/words",))
    assert front(card(Lineage(base, {})))["datasets"] == ["owner/words"]
    assert "datasets" not in front(card(Lineage(base, {}, Adapter("lora"))))
    path = f"/x/datasets--owner--own/snapshots/{COMMIT}/rows.jsonl"
    run = Run(Path("run"), {"data": {"path": path, "sha256": "ab"}, "stages": {}})
    text = card(Lineage(base, {}, Adapter("lora"), run))
    assert front(text)["datasets"] == ["owner/own"]
    assert section(text, "Made from") == [
        "- data: sha256 `ab`",
        f"- its rows are the dataset owner/own at commit `{COMMIT}`",
    ]
    assert "Under which licence the training data stand is not recorded." in text


def test_a_licence_that_nobody_stated_is_not_claimed() -> None:
    text = card(Lineage(BaseModel("Tiny"), {}))
    assert front(text)["license"] == "other"
    assert "license_name" not in front(text)
    assert section(text, "Licences") == [
        "The licence of the base model is not known here. Find it out before you pass this model on."
    ]


def test_odd_names_stay_what_they_are() -> None:
    odd = 'a: "b" # c\n- {d}\u2028é'
    base = BaseModel(odd, licence=Licence("other", "its README.md", odd, "javascript:x"), languages=("no", "on", "1.0"))
    text = card(Lineage(base, {}))
    found = front(text)
    assert (found["license_name"], found["language"]) == (odd, ["no", "on", "1.0"])
    assert 'a: "b" \\# c - {d} é' in text
    assert "(javascript:x)" not in text


def test_the_repositories_and_their_licences(lineage: Lineage) -> None:
    assert lineage.run is not None
    _, (docs, notes) = read_manifest(lineage.run.path("genome.json"))
    text = card(lineage)
    table = rows(section(text, "Made from"))
    assert table[0] == ["repository", "at", "files", "tokens", "licence"]
    assert table[1][:3] + table[1][4:] == ["docs", f"`docs@{docs.commit}`", "8", "MIT"]
    assert table[2][:3] + table[2][4:] == ["no\\_te\\|s", f"`no_te\\|s@{notes.commit}`", "2", "none stated"]
    assert int(table[1][3].replace(",", "")) > 1000
    assert "MIT (1), none stated (1)" in text
    assert f"- genome: sha256 `{lineage.material['genome']}`" in text


def test_a_repositorys_words_are_no_markdown(lineage: Lineage) -> None:
    evil = RepositoryRecord("<img src=x>[a](b)`", "remote", "https://h/o/`|a", COMMIT, licence="*x* | y\nz")
    text = card(dataclasses.replace(lineage, repositories=[evil]))
    (row,) = [line for line in text.splitlines() if COMMIT in line]
    assert row == (f"| \\<img src=x\\>\\[a\\](b)\\` | `https://h/o/'\\|a@{COMMIT}` | 0 | 0 | \\*x\\* \\| y z |")


def test_how_it_was_trained(lineage: Lineage, finished: Path) -> None:
    adapters = sha256_file(finished / "run/adapters/adapters.safetensors")
    assert rows(section(card(lineage), "Training"))[1:] == [
        ["kind", "dora"],
        ["rank", "4"],
        ["alpha", "8"],
        ["layers", "all"],
        ["trained parameters", "12,345"],
        ["steps", "6"],
        ["the adapter is of step", "5"],
        ["tokens learned from", "621"],
        ["tokens in a row", "128"],
        ["rows in a step", "6"],
        ["optimizer", "adamw"],
        ["peak learning rate", "0.001, cosine"],
        ["training loss at the end", "2.5000"],
        ["validation loss at the end", "2.7500"],
        ["validation loss of the adapter", "2.6250"],
        ["seed", "7"],
        ["backend", "mlx"],
        ["dtype of the base", "float32"],
        ["sha256 of the adapter", f"`{adapters}`"],
    ]
    foreign = card(Lineage(ON_HUB, {}, Adapter("lora", 8, 16.0, {"adapter_model.safetensors": "ab"})))
    assert rows(section(foreign, "Training"))[1:] == [
        ["kind", "lora"],
        ["rank", "8"],
        ["alpha", "16"],
        ["sha256 of the adapter", "`ab`"],
    ]
    assert "was not trained in a run of chrysalis-mlx" in foreign


def test_what_was_learned_forgotten_and_copied(lineage: Lineage) -> None:
    text = card(lineage, verification={"fused": {}, "gguf": ENTRIES}, evaluation=EVALUATION)
    told = section(text, "Evaluation")
    assert told[0] == "On 1,234 tokens of 9 documents that were kept out of the training:"
    assert rows(told[:6]) == [
        ["model", "perplexity", "95 % interval", "nats per token"],
        ["base", "20.086", "19.586 to 20.586", "3.0000"],
        ["tuned", "7.389", "6.889 to 7.889", "2.0000"],
    ]
    assert (
        "On 1,234 tokens of general English the perplexity went from 12.182 to 15.643, 1.284 times (1.000 to 1.500); "
        "above 1 it has forgotten." in told
    )
    assert rows(told[6:]) == [
        ["texts", "base", "tuned"],
        ["trained on", "1 of 16", "4 of 16"],
        ["kept out of the training", "0 of 15", "0 of 15"],
    ]


def test_of_the_evaluation_what_was_asked_for(lineage: Lineage) -> None:
    bare = dataclasses.replace(EVALUATION.base, general=None, copying={})
    text = card(lineage, evaluation=Evaluation("mlx", bare, bare, changes={"test": Change(1.0)}))
    assert len(rows(section(text, "Evaluation"))) == 3
    assert "general English" not in text
    assert "Continuations" not in text
    assert "## Evaluation" not in card(lineage)


def test_the_verification_of_each_file(lineage: Lineage) -> None:
    text = card(lineage, verification={"fused": {}, "gguf": ENTRIES}, evaluation=EVALUATION)
    assert rows(section(text, "Verification")) == [
        [
            "file",
            "size",
            "bits per weight",
            "KL to the trained model",
            "perplexity",
            "same most likely token",
            "verdict",
        ],
        ["`model-F16.gguf`", "2.0 MB", "16.00", "1.00e-06", "10.000", "100.0%", "verified"],
        ["`model-Q4_K_M.gguf`", "0.7 MB", "5.50", "5.00e-02", "", "90.0%", "KL 5.00e-02 is above \\| the budget"],
    ]


@pytest.mark.parametrize(
    ("verification", "table"),
    [
        (None, None),
        ({}, None),
        ({"gguf": {"F16": {"kl": 1.0}}}, None),
        ({"files": [{"file": "a", "verified": True, "kl": None}]}, [["file", "verdict"], ["`a`", "verified"]]),
        ({"gguf": {"x": {"file": "a", "bytes": 1}}}, [["file", "size", "verdict"], ["`a`", "0.0 MB", "not verified"]]),
    ],
)
def test_of_the_verification_what_is_there(
    lineage: Lineage, verification: Mapping[str, Any] | None, table: list[list[str]] | None
) -> None:
    text = card(lineage, verification=verification)
    assert ("## Verification" in text) == (table is not None)
    if table:
        assert rows(section(text, "Verification")) == table


def test_how_it_is_run(lineage: Lineage) -> None:
    assert section(card(lineage), "Use") == [
        "```sh",
        "ollama create tiny-1m-instruct-wings -f Modelfile && ollama run tiny-1m-instruct-wings",
        "llama-server -m model-Q4_K_M.gguf",
        'mlx_lm.generate --model ../fused --prompt "..."   # the safetensors that were written with these files',
        "```",
    ]
    alone = section(card(Lineage(ON_HUB, {}, Adapter("lora")), [Path("adapter.gguf")], fused=None), "Use")
    assert alone[1:-1] == [
        "llama-server -m BASE.gguf --lora adapter.gguf   # BASE.gguf: the base model, converted to GGUF"
    ]


def test_it_says_who_made_it_and_no_path_of_this_machine(lineage: Lineage, finished: Path) -> None:
    text = card(lineage, verification={"gguf": ENTRIES}, evaluation=EVALUATION)
    assert f"and converted to GGUF with chrysalis-mlx {__version__}." in text
    assert str(finished) not in text
    assert text.endswith("\n")
    assert "may repeat passages" in text
