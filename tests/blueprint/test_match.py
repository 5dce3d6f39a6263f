"""Which blueprint a model finds, and why."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from chrysalis_mlx.blueprint.library import library
from chrysalis_mlx.blueprint.load import load_blueprint
from chrysalis_mlx.blueprint.match import best_blueprint, rank, too_large
from chrysalis_mlx.errors import BlueprintError, ModelError
from chrysalis_mlx.models.facts import ModelFacts, read_facts, resolve_facts
from tests.models.published import PUBLISHED, write_published

GB = 10**9
UNMATCHED = {"demo", "tiny"}
MISTRAL = "mistralai/Mistral-7B-Instruct-v0.3"


def model(name: str, model_type: str, millions: float, variant: str = "instruct", **more: object) -> ModelFacts:
    facts = ModelFacts(name, model_type, round(millions * 1e6), "base", 32_768, None, ())
    return replace(facts, variant=variant, **more)  # type: ignore[arg-type]


def blueprints(directory: Path, **rules: str) -> dict[str, Path]:
    """A file for each, with these rules."""
    for name, match in rules.items():
        (directory / f"{name}.yaml").write_text(f"name: {name}\nmatch: {match}\n")
    return {name: directory / f"{name}.yaml" for name in rules}


@pytest.mark.parametrize("name", sorted(set(library()) - UNMATCHED))
def test_a_shipped_blueprint_comes_first_for_the_model_it_names(name: str, tmp_path: Path) -> None:
    path = library()[name]
    blueprint = load_blueprint(path)
    header = re.search(r"--model (\S+/\S+)", path.read_text(encoding="utf-8"))
    source = blueprint.model.source or (header[1] if header else "")
    facts = read_facts(write_published(tmp_path, source), source.split("/")[1])
    assert facts.parameters == PUBLISHED[source][1]
    for gigabytes in (blueprint.match.min_memory, 24, 64):
        if gigabytes < blueprint.match.min_memory:
            continue
        first = rank(facts, round(gigabytes * GB))[0]
        assert (first.name, first.path, first.fits) == (name, path, True)
        assert best_blueprint(facts, round(gigabytes * GB)) == first


def test_a_gguf_finds_its_blueprint_by_its_file_name() -> None:
    facts = model("SmolLM2-135M-Instruct.Q4_1", "llama", 134.5)
    first = rank(facts, 16 * GB)[0]
    assert (first.name, first.fits, first.specificity) == ("smollm2-135m-instruct", True, 17)
    assert first.reasons == (
        "for models named smollm2-135m-instruct*",
        "for 4 or more GB of memory",
    )


@pytest.mark.parametrize(
    ("facts", "gigabytes", "expected"),
    [
        (model("Qwen3-1.7B", "qwen3", 1720), 16, "gemma-3-1b"),
        (model("Llama-3.2-3B-Instruct", "llama", 3213), 16, "qwen3-4b-qlora"),
        (model("gemma-3-4b-it", "gemma3_text", 3880), 16, "phi-3-mini-qlora"),
        (model("Llama-3.2-3B", "llama", 3213, "base"), 16, "llama-3.2-1b"),
        (model("Qwen2.5-0.5B", "qwen2", 494, "base"), 8.6, "qwen3-0.6b-base"),
        (model("Qwen2.5-0.5B-Instruct", "qwen2", 494), 8.6, "qwen3-0.6b"),
        (model("gemma-3-270m-it", "gemma3_text", 268), 8.6, "qwen3-0.6b"),
        (model("granite-3.3-8b", "granite", 8171, "base"), 64, "whole-genome"),
        (model("Qwen3-8B-4bit", "qwen3", 8191, bits=4), 16, "qwen3-4b-qlora"),
        (model("SmolLM2-135M", "llama", 134.5, "base"), 16, "smollm2-360m"),
        (model("SmolLM2-360M-Instruct", "llama", 361.8), 16, "qwen3-0.6b"),
        (model("pythia-14m", "gpt_neox", 14, "base"), 16, "gemma-3-270m"),
        (model("tiny", "llama", 0.1), 16, "qwen3-0.6b"),
        (model("Llama-3.1-405B", "llama", 405_000), 2000, "whole-genome"),
        (model("Qwen3-30B-A3B", "qwen3_moe", 30_532), 128, "whole-genome"),
    ],
)
def test_every_other_model_gets_the_nearest(facts: ModelFacts, gigabytes: float, expected: str) -> None:
    assert best_blueprint(facts, round(gigabytes * GB)).name == expected


@pytest.mark.parametrize("variant", ["base", "instruct"])
@pytest.mark.parametrize("gigabytes", [2, 8, 32, 512])
def test_whatever_fits_into_memory_has_a_sensible_first(variant: str, gigabytes: int) -> None:
    """Any size in steps of a half: of the same kind, in memory, and never one that only its name finds."""
    millions = 1.0
    while not too_large(facts := model("any", "llama", millions, variant), gigabytes * GB):
        first = best_blueprint(facts, gigabytes * GB)
        blueprint = load_blueprint(first.path)
        assert first.name not in {*UNMATCHED, "smollm2-135m-instruct"}
        if gigabytes >= 8:
            assert blueprint.match.min_memory <= gigabytes
            assert blueprint.match.variant in (variant, "any")
        if gigabytes >= 32 and millions >= 7000:
            assert first.name == "whole-genome"
        millions *= 1.5
    assert millions > 100


def test_the_more_specific_comes_first(tmp_path: Path) -> None:
    files = blueprints(
        tmp_path,
        anything="{names: '*'}",
        by_memory="{min_memory: 1}",
        by_variant="{variant: instruct}",
        a_wide_range="{min_parameters: 1, max_parameters: 9999}",
        by_range="{min_parameters: 100, max_parameters: 999}",
        by_range_and_variant="{min_parameters: 100, max_parameters: 999, variant: instruct}",
        by_type="{model_types: [llama]}",
        by_name="{names: [other, X-*]}",
        nobody="{}",
    )
    ranked = rank(model("x-1", "llama", 500), 8 * GB, files)
    assert [match.name for match in ranked] == [
        "anything",
        "by_name",
        "by_type",
        "by_range_and_variant",
        "by_range",
        "a_wide_range",
        "by_variant",
        "by_memory",
    ]
    assert [match.specificity for match in ranked] == [16, 16, 8, 6, 4, 4, 2, 1]
    assert all(match.fits for match in ranked)


def test_every_rule_must_hold_and_what_does_not_is_said(tmp_path: Path) -> None:
    files = blueprints(
        tmp_path,
        near="{model_types: [qwen3], min_parameters: 100, max_parameters: 200, variant: instruct}",
        far="{model_types: [llama], min_parameters: 10, max_parameters: 20, variant: instruct}",
        kind="{min_parameters: 300, variant: base}",
        memory="{min_parameters: 300, min_memory: 16, max_memory: 32}",
        name="{names: [y, z]}",
    )
    ranked = rank(model("x", "llama", 300), round(8.59 * GB), files)
    assert [(match.name, match.reasons) for match in ranked] == [
        ("near", ("for the type qwen3, not llama", "for 100 to 200 million parameters, not 300")),
        ("far", ("for 10 to 20 million parameters, not 300",)),
        ("kind", ("for base models, not instruct", "of the right size")),
        ("memory", ("for 16 to 32 GB of memory, not 8.6", "of the right size")),
        ("name", ("for models named y or z, not x",)),
    ]
    assert not any(match.fits for match in ranked)


@pytest.mark.parametrize(("millions", "fits"), [(99.9, False), (100, True), (199.9, True), (200, False)])
def test_a_range_holds_its_lower_end_alone(tmp_path: Path, millions: float, fits: bool) -> None:
    files = blueprints(tmp_path, one="{min_parameters: 100, max_parameters: 200}")
    assert rank(model("x", "llama", millions), 8 * GB, files)[0].fits is fits


def test_rows_longer_than_the_context_do_not_fit(tmp_path: Path) -> None:
    files = blueprints(tmp_path, one="{variant: any, min_parameters: 1}")
    assert rank(model("x", "llama", 10, context_length=1024), 8 * GB, files)[0].fits
    (match,) = rank(model("x", "llama", 10, context_length=512), 8 * GB, files)
    assert (match.fits, match.reasons[0]) == (False, "for contexts of 1,024 tokens or more, not 512")


def test_a_model_that_is_too_large_has_no_best(tmp_path: Path) -> None:
    facts = model("Qwen3-4B", "qwen3", 4022)
    assert too_large(facts, round(16.1 * GB)) is None
    with pytest.raises(ModelError, match=r"weights take 8\.0 GB, more than half of the machine's 8\.6 GB") as caught:
        best_blueprint(facts, round(8.59 * GB))
    assert (caught.value.where, "quantized" in str(caught.value.fix)) == ("Qwen3-4B", True)
    nearest = best_blueprint(replace(facts, bits=4), round(8.59 * GB))
    assert (nearest.name, nearest.fits) == ("gemma-3-1b", False)
    assert nearest.reasons == (
        "none is made for this model and machine, and it comes nearest",
        "for the type gemma3_text, not qwen3",
        "for 900 to 2,500 million parameters, not 4,022",
    )


def test_a_blueprint_that_is_damaged_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("match: {variant: chat}\n")
    with pytest.raises(BlueprintError, match=r"match\.variant: 'chat' is not one of any, base, instruct"):
        rank(model("x", "llama", 10), GB, {"bad": tmp_path / "bad.yaml"})


def test_a_real_directory(tiny_model: Path) -> None:
    """Of 512 positions: a blueprint with rows so short comes before those that are nearer in size."""
    first = best_blueprint(resolve_facts(str(tiny_model)), 16 * GB)
    assert (first.name, load_blueprint(first.path).training.row_length) == ("gemma-3-1b", 512)
