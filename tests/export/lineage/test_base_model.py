"""What a base model says of itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chrysalis_mlx.export.lineage.base_model import BaseModel, HubSnapshot, Licence, name_parts, plain_name, size_label
from tests.export.finished import CARD, MIT, write

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("name", "parameters", "parts"),
    [
        ("SmolLM2-135M-Instruct", 134_515_008, ("SmolLM2", "135M", "Instruct")),
        ("Qwen3-0.6B", 596_049_920, ("Qwen3", "0.6B", None)),
        ("gemma-2-2b-it", None, ("gemma-2", "2B", "it")),
        ("Qwen3-30B-A3B-Instruct-2507", None, ("Qwen3", "30B-A3B", "Instruct-2507")),
        ("Mixtral-8x7B-v0.1", None, ("Mixtral", "8x7B", "v0.1")),
        ("Phi-3-mini-4k-instruct", 3_821_079_552, None),
        ("granite-code", None, None),
        ("7B", None, None),
    ],
)
def test_a_name_in_its_parts(name: str, parameters: int | None, parts: tuple[str, str, str | None] | None) -> None:
    assert name_parts(name, parameters) == parts


@pytest.mark.parametrize(
    ("parameters", "label"),
    [(107_328, "107K"), (134_515_008, "135M"), (1_720_574_976, "1.7B"), (30_532_122_624, "31B"), (5 * 10**12, "5.0T")],
)
def test_a_size_as_ggufs_own_function_writes_it(parameters: int, label: str) -> None:
    from gguf.utility import model_weight_count_rounded_notation

    assert size_label(parameters) == label == model_weight_count_rounded_notation(parameters)


def test_a_files_name_without_its_type() -> None:
    assert plain_name("SmolLM2-135M-Instruct.Q4_1.gguf") == "SmolLM2-135M-Instruct"
    assert plain_name("model-IQ4_XS.gguf") == plain_name("model-BF16") == "model"
    assert plain_name("Qwen3-0.6B") == "Qwen3-0.6B"
    assert plain_name("caf\udce9") == "caf?"


def test_of_the_hubs_cache_the_id_and_the_commit_are_known(tiny_model: Path, tmp_path: Path) -> None:
    directory = tmp_path / "models--owner--Tiny-1M" / "snapshots" / COMMIT
    shutil.copytree(tiny_model, directory)
    (directory / "README.md").write_text("---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\n---\n")
    base = BaseModel.read("owner/Tiny-1M", directory)
    link = f"https://huggingface.co/owner/Tiny-1M/blob/{COMMIT}/LICENSE"
    assert (base.name, base.hub, base.organization) == ("Tiny-1M", HubSnapshot("owner/Tiny-1M", COMMIT), "owner")
    assert base.licence == Licence("other", "its README.md", "own", link)
    assert HubSnapshot.of(Path(f"/x/datasets--o--words/snapshots/{COMMIT}/a.jsonl"), "datasets") == HubSnapshot(
        "o/words", COMMIT
    )
    assert HubSnapshot.of(Path(f"/x/datasets--o--words/snapshots/{COMMIT}")) is None


def test_of_a_directory_its_readme(tiny_model: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_model, tmp_path / "Tiny"))
    assert BaseModel.read(str(directory), directory) == BaseModel(
        "Tiny", parameters=BaseModel.read("x", directory).parameters
    )
    (directory / "README.md").write_text(CARD)
    base = BaseModel.read(str(directory), directory)
    assert (base.name, base.hub, base.organization) == ("Tiny", None, None)
    assert base.licence == Licence("other", "its README.md", "tiny-licence", "https://example.org/licence")
    assert (base.languages, base.made_from, base.datasets) == (("en", "no"), ("owner/Older-1B",), ("owner/words",))
    assert base.parameters is not None
    assert size_label(base.parameters) == "107K"


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", Licence("mit", "its README.md")),
        ("\ufeff---\r\nlicense: mit\r\n---\r\n", Licence("mit", "its README.md")),
        ("---\nlicense: [mit, gemma]\n---\n", Licence("other", "its README.md", "mit, gemma")),
        ("---\nlicense: other\nlicense_name: x\nlicense_link: LICENSE\n---\n", Licence("other", "its README.md", "x")),
        ("---\nlicense: unknown\n---\n", None),
        ("---\nlicense: 7\n---\n", None),
        ("---\nlicense: [unclosed\n---\n", None),
        ("---\ndate: 2020-99-99\nlicense: mit\n---\n", None),
        ("license: mit\n", None),
        ("---\n- a list\n---\n", None),
    ],
)
def test_a_licence_is_what_the_readme_states(tmp_path: Path, card: str, licence: Licence | None) -> None:
    (tmp_path / "README.md").write_text(card, encoding="utf-8", newline="")
    assert BaseModel.read("x", tmp_path).licence == licence


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (MIT, Licence("mit", "its LICENSE")),
        ("GNU Library General Public License, version 2", Licence("other", "its LICENSE", "LGPL-2.0")),
        ("All rights reserved.", None),
    ],
)
def test_else_what_its_licence_file_is(tmp_path: Path, text: str, licence: Licence | None) -> None:
    (tmp_path / "LICENSE").write_text(text)
    assert BaseModel.read("x", tmp_path).licence == licence


def test_of_a_gguf_file_its_keys(tmp_path: Path) -> None:
    keys = {"general.license": "apache-2.0", "general.organization": "Owner", "general.languages": ["en"]}
    file = write(tmp_path / "Tiny-1M.Q4_1.gguf", {**keys, "general.name": "another"})
    base = BaseModel.read(str(file), tmp_path / "imported")
    assert base == BaseModel("Tiny-1M", None, "Owner", Licence("apache-2.0", "its .gguf file"), ("en",))
    file.unlink()
    assert BaseModel.read(str(file), tmp_path / "imported") == BaseModel("Tiny-1M")
