"""YAML to a blueprint and back: every mistake is told, all at once."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chrysalis_mlx.blueprint.load import dump_blueprint, load_blueprint, parse_blueprint, to_dict
from chrysalis_mlx.blueprint.schema import AdapterSection, Blueprint, MixSection, TrainingSection
from chrysalis_mlx.errors import BlueprintError


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(BlueprintError) as caught:
        parse_blueprint(text, where="b.yaml")
    assert caught.value.where == "b.yaml"
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems


def parse(text: str) -> Blueprint:
    return parse_blueprint(text, where="b.yaml")


def test_an_empty_file_is_the_defaults() -> None:
    assert parse("") == parse("# nothing\n") == parse("training:\n") == Blueprint()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trainig: {steps: 3}", "trainig: unknown key; did you mean 'training'?"),
        ("training: {learning_rat: 1}", "training.learning_rat: unknown key; did you mean 'learning_rate'?"),
        ("evaluation: {zzz: 1}", "evaluation.zzz: unknown key; known here: max_rows"),
        ("3: x", "3: unknown key; known here: version, name"),
    ],
)
def test_an_unknown_key_is_an_error_with_the_nearest_name(text: str, expected: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training: {steps: ten}", "training.steps: 'ten' is not a whole number"),
        ("training: {steps: 2.0}", "training.steps: 2.0 is not a whole number"),
        ("training: {steps: true}", "training.steps: True is not a whole number"),
        ("training: {learning_rate: fast}", "training.learning_rate: 'fast' is not a finite number"),
        ("training: {learning_rate: .inf}", "training.learning_rate: inf is not a finite number"),
        ("training: {learning_rate: .nan}", "training.learning_rate: nan is not a finite number"),
        ("training: {learning_rate: false}", "training.learning_rate: False is not a finite number"),
        (f"training: {{learning_rate: {10**400}}}", f"training.learning_rate: {10**400} is not a finite number"),
        ("training: {dtype: float8}", "training.dtype: 'float8' is not one of auto, float32, bfloat16, float16"),
        ("adapter: {kind: qlora}", "adapter.kind: 'qlora' is not one of lora, dora, full"),
        ("adapter: {layers: some}", "adapter.layers: 'some' is not a whole number or one of all"),
        ("adapter: {layers: true}", "adapter.layers: True is not a whole number or one of all"),
        ("adapter: {modules: {a: b}}", "adapter.modules: {'a': 'b'} is not a list of strings"),
        ("adapter: {modules: [q_proj, 3]}", "adapter.modules: ['q_proj', 3] is not a list of strings"),
        ("expression: {include: 7}", "expression.include: 7 is not a list of strings"),
        ("evaluation: {max_rows: all}", "evaluation.max_rows: 'all' is not a whole number or null"),
        ("name: 2024-05-06", "name: datetime.date(2024, 5, 6) is not a string"),
        ("expression: {weights: [a]}", "expression.weights: ['a'] is not a mapping of strings to numbers"),
        ("expression: {weights: {a: often}}", "expression.weights['a']: 'often' is not a finite number"),
        ("expression: {weights: {1: 2}}", "expression.weights: the key 1 is not a string; put it in quotes"),
        ("expression: {gates: {generated: 1}}", "expression.gates.generated: 1 is not true or false"),
        ("training: 5", "training: expected a mapping of fields, got 5"),
        ("- a\n- b", "the file: expected a mapping of fields, got ['a', 'b']"),
    ],
)
def test_a_wrong_type_names_path_value_and_what_is_expected(text: str, expected: str) -> None:
    assert problems(text) == (expected,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training: {steps: 0}", "training.steps: 0 is out of range; it must be at least 1"),
        ("training: {row_length: 15}", "training.row_length: 15 is out of range; it must be at least 16"),
        ("training: {beta1: 1}", "training.beta1: 1 is out of range; it must be between 0.0 and 0.9999"),
        ("split: {valid: -0.1}", "split.valid: -0.1 is out of range; it must be between 0.0 and 0.5"),
        ("adapter: {layers: 0}", "adapter.layers: 0 is out of range; it must be at least 1"),
        ("version: 3", "version: 3 is out of range; it must be between 2 and 2"),
        (
            "expression: {weights: {'docs.*': -0.5}}",
            "expression.weights['docs.*']: -0.5 is out of range; it must be at least 0.0",
        ),
    ],
)
def test_a_value_out_of_range_names_the_range(text: str, expected: str) -> None:
    assert problems(text) == (expected,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {steps: 5, warmup_steps: 5}", "training.warmup_steps: 5 leaves none of training.steps 5"),
        ("training: {learning_rate: 1e-4, min_learning_rate: 1e-3}", "is above training.learning_rate 0.0001"),
        ("split: {valid: 0.3, test: 0.3}", "split: valid 0.3 + test 0.3 leave less than half"),
        ("expression: {include: []}", "expression.include: an empty list expresses nothing"),
        ("adapter: {modules: []}", "adapter.modules: an empty list trains nothing"),
        ("adapter: {side: first}", "adapter.side: 'first' has no effect with adapter.layers all; leave it out"),
        ("adapter: {kind: full, modules: q_proj}", "adapter.modules: ['q_proj'] has no effect with adapter.kind full"),
        ("adapter: {kind: full}\ntraining: {b_ratio: 16}", "training.b_ratio: 16.0 has no effect with adapter.kind"),
        ("training: {b_ratio: 0}", "training.b_ratio: 0.0 never trains B"),
        ("training: {optimizer: lion, epsilon: 1e-6}", "epsilon: 1e-06 has no effect with training.optimizer lion"),
        ("training: {decay_share: 0.5}", "decay_share: 0.5 has no effect with training.schedule cosine; wsd alone"),
        (
            "training: {schedule: constant, min_learning_rate: 1e-5}",
            "training.min_learning_rate: 1e-05 has no effect with training.schedule constant",
        ),
        (
            "training: {schedule: wsd, steps: 20, warmup_steps: 11, decay_share: 0.5}",
            "training.decay_share: 0.5 of training.steps 20 and training.warmup_steps 11 overlap",
        ),
        (
            "training: {patience: 4, validate_every: 50, steps: 200}",
            "training.patience: 4 validations, one every 50 steps, are not over before training.steps 200 are",
        ),
        ("training: {report_to: [wandb, Tensorbord]}", "'Tensorbord' is unknown; did you mean 'tensorboard'?"),
        ("training: {report_to: mlflow}", "'mlflow' is unknown; known here: tensorboard, wandb, trackio"),
        ("framing: {mix: {text: 0}}", "framing.mix: nothing above 0 frames nothing"),
        (
            "match: {min_parameters: 7, max_parameters: 7}",
            "match.max_parameters: 7.0 is not above match.min_parameters",
        ),
        ("match: {min_memory: 16, max_memory: 8}", "match.max_memory: 8.0 is not above match.min_memory 16.0"),
        ("expression: {copies: {near: 0.4}}", "expression.copies.near: 0.4 is below expression.copies.family 0.5"),
        ("export: {quantize: [F16, Q9_9]}", "export.quantize: no GGUF type is called 'Q9_9'; the types are F32, F16"),
        ("framing: {header: '{commit}'}", "framing.header: 'commit' cannot be filled in"),
        ("framing: {header: '{0}'}", "framing.header: "),
        ("framing: {header: '{'}", "framing.header: "),
        ("framing: {header: '{path.name}'}", "framing.header: 'str' object has no attribute 'name'"),
        ("framing: {header: '{path[name]}'}", "framing.header: string indices must be integers"),
    ],
)
def test_fields_that_contradict_each_other(text: str, words: str) -> None:
    (problem,) = problems(text)
    assert words in problem


def test_every_field_without_effect_is_named() -> None:
    adapter = "{kind: full, rank: 4, alpha: 3, dropout: 0.1, rslora: true, ranks: {q_proj: 2}, alphas: {q_proj: 2}}"
    found = problems(f"adapter: {adapter}\ntraining: {{optimizer: adafactor, beta1: 0.8, beta2: 0.9, epsilon: 1e-6}}")
    assert [problem.split(":")[0] for problem in found] == [
        "adapter.rslora",
        "adapter.dropout",
        "adapter.ranks",
        "adapter.alphas",
        "training.beta1",
        "training.beta2",
        "training.epsilon",
    ]
    assert all("has no effect" in problem for problem in found)


@pytest.mark.parametrize(
    "text",
    [
        "adapter: {kind: full, layers: 2, side: first}\ntraining: {optimizer: adafactor}",
        "training: {schedule: wsd, steps: 20, warmup_steps: 10, decay_share: 0.5}",
        "training: {patience: 3, validate_every: 50, steps: 200, report_to: [tensorboard, wandb, trackio]}",
    ],
)
def test_what_goes_together(text: str) -> None:
    assert to_dict(parse(text)) == to_dict(parse(dump_blueprint(parse(text))))


def test_wrong_fields_hide_no_contradiction_in_another_section() -> None:
    text = "adapter: {rnk: 4, modules: []}\nsplit: {valid: 0.3, test: 0.3}\nexport: {quantize: Q9_9}\nname: 3\n"
    assert [problem.split(":")[0] for problem in problems(text)] == ["adapter.rnk", "name", "split", "export.quantize"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("row_length: 512", "row_length: unknown key; did you mean 'training.row_length'?"),
        ("training: {rank: 4}", "training.rank: unknown key; did you mean 'adapter.rank'?"),
        ("adapter: {training: {}}", "adapter.training: unknown key; did you mean 'training'?"),
        ("gates: {}", "gates: unknown key; did you mean 'expression.gates' or 'data.gates'?"),
    ],
)
def test_a_key_in_a_wrong_section_is_told_its_own(text: str, hint: str) -> None:
    assert problems(text) == (hint,)


def test_all_problems_come_at_once() -> None:
    text = "nam: x\ntraining: {steps: 0, dtype: int4, seeds: 1}\nadapter: 3\nsplit: {valid: 0.9}\nexport: {dtype: 4}\n"
    found = problems(text)
    assert [problem.split(":")[0] for problem in found] == [
        "nam",
        "training.steps",
        "training.dtype",
        "training.seeds",
        "adapter",
        "split.valid",
        "export.dtype",
    ]
    with pytest.raises(BlueprintError, match="the blueprint has 7 problems"):
        parse(text)


def test_all_contradictions_come_at_once() -> None:
    assert (
        len(problems("training: {steps: 1, warmup_steps: 2}\nsplit: {valid: 0.4, test: 0.4}\nadapter: {modules: []}"))
        == 3
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {steps: 3, steps: 4}", "the key 'steps' stands here twice"),
        ("name: a\nname: b", "the key 'name' stands here twice"),
        ("name: [", "while parsing"),
        ("? [a, b]\n: c", "found unhashable key"),
        ("name: !!python/object:os.system x", "could not determine a constructor"),
        ("name: 2024-13-45", "month must be in 1..12"),
    ],
)
def test_what_is_no_usable_yaml(text: str, words: str) -> None:
    (problem,) = problems(text)
    assert words in problem


@pytest.mark.parametrize("number", ["1e-4", "1.0e-4", "0.0001", "'1e-4'", "1E-4"])
def test_a_number_in_any_notation(number: str) -> None:
    value = parse(f"training: {{learning_rate: {number}}}").training.learning_rate
    assert (type(value), value) == (float, 1e-4)


def test_a_whole_number_where_a_float_is_meant_becomes_one() -> None:
    assert repr(parse("adapter: {alpha: 16}").adapter.alpha) == "16.0"


def test_one_pattern_needs_no_list() -> None:
    assert parse("expression: {exclude: '*.log'}").expression.exclude == ("*.log",)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BlueprintError, match=r"cannot be read: .*No such file"):
        load_blueprint(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe4\n")
    with pytest.raises(BlueprintError, match="cannot be read"):
        load_blueprint(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("version: 1\nname: x\n", []),
        (
            "expression: {min_characters: 200}\n",
            ["expression.min_characters is now expression.gates.min_characters"],
        ),
        (
            "version: 1\nframing: {kind: text}\nexpression: {min_characters: 2}\ntraining: {steps: none}\n",
            [
                "expression.min_characters is now expression.gates.min_characters",
                "framing.kind is now framing.mix ({text: 1} for text)",
            ],
        ),
    ],
)
def test_a_file_of_version_1_has_one_problem_that_says_what_moved(text: str, moved: list[str]) -> None:
    assert problems(text) == ("; ".join(["version: this program reads version 2; set it to 2", *moved]),)


def test_a_field_of_version_1_in_a_file_of_version_2_is_unknown() -> None:
    (problem,) = problems("version: 2\nframing: {kind: text}\n")
    assert problem.startswith("framing.kind: unknown key")


@pytest.mark.parametrize(
    "text",
    ["order: {replay: 2}", "expression: {budget: {total: 5, per_repository: 9}}", "expression: {copies: {near: null}}"],
)
def test_what_is_pointless_is_no_contradiction(text: str) -> None:
    assert parse(text)


def values(hint: Any, limits: Any) -> st.SearchStrategy[Any]:
    """Every value that a field may have."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*(values(part, limits) for part in arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is dict:
        return st.dictionaries(st.text(max_size=5), values(arguments[1], limits), max_size=2)
    if origin is tuple:
        return st.lists(st.text(max_size=5), min_size=1, max_size=3).map(tuple)
    low, high = limits.get("minimum"), limits.get("maximum")
    if hint is int:
        return st.integers(low, high)
    if hint is float:
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    if hint is bool:
        return st.booleans()
    return st.none() if hint is type(None) else st.text(max_size=8)


def sections(cls: Any) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    fields = {
        field.name: sections(hints[field.name])
        if dataclasses.is_dataclass(hints[field.name])
        else values(hints[field.name], field.metadata)
        for field in dataclasses.fields(cls)
    }
    return st.builds(cls, **fields)


def consistent(blueprint: Blueprint) -> Blueprint:
    """The same blueprint without its contradictions."""
    split, match, copies = blueprint.split, blueprint.match, blueprint.expression.copies
    mix = blueprint.framing.mix
    return dataclasses.replace(
        blueprint,
        match=dataclasses.replace(match, max_parameters=None, max_memory=None),
        expression=dataclasses.replace(
            blueprint.expression,
            copies=dataclasses.replace(copies, near=copies.near and max(copies.near, copies.family)),
        ),
        framing=dataclasses.replace(
            blueprint.framing,
            header=blueprint.framing.header.replace("{", "").replace("}", ""),
            mix=mix if any(dataclasses.astuple(mix)) else MixSection(text=1.0),
        ),
        split=dataclasses.replace(split, valid=split.valid / 2, test=split.test / 2),
        export=dataclasses.replace(blueprint.export, quantize=("F16", "Q4_K_M")[: len(blueprint.export.quantize)]),
        adapter=consistent_adapter(blueprint.adapter),
        training=consistent_training(blueprint.training, blueprint.adapter.kind),
    )


def consistent_adapter(adapter: AdapterSection) -> AdapterSection:
    if adapter.layers == "all":
        adapter = dataclasses.replace(adapter, side="last")
    if adapter.kind == "full":
        return AdapterSection(
            adapter.kind, rank=adapter.rank, alpha=adapter.alpha, layers=adapter.layers, side=adapter.side
        )
    return adapter


def consistent_training(training: TrainingSection, kind: str) -> TrainingSection:
    changes: dict[str, Any] = {
        "warmup_steps": min(training.warmup_steps, training.steps - 1),
        "min_learning_rate": min(training.min_learning_rate, training.learning_rate),
        "b_ratio": 1.0 if kind == "full" else training.b_ratio or 1.0,
        "patience": None,
        "report_to": ("wandb", "trackio")[: len(training.report_to)],
    }
    if training.optimizer in ("adafactor", "lion"):
        changes |= {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
    if training.schedule == "constant":
        changes["min_learning_rate"] = 0.0
    changes["decay_share"] = 0.0 if training.schedule == "wsd" else 0.2
    return dataclasses.replace(training, **changes)


@settings(max_examples=50, deadline=None)
@given(sections(Blueprint).map(consistent))
def test_what_is_dumped_parses_to_the_same(blueprint: Blueprint) -> None:
    text = dump_blueprint(blueprint, header="a header\n\nof lines")
    assert text.startswith("# a header\n#\n# of lines\nversion: 2\n")
    assert parse(text) == blueprint
    assert to_dict(parse(text)) == to_dict(blueprint)


@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029", "\r", "\n", "\ufeff", "\x00", "ä東🦋"])
def test_no_character_is_lost_in_a_dump(character: str) -> None:
    blueprint = Blueprint(description=f"a{character}b", name=character)
    assert parse(dump_blueprint(blueprint)) == blueprint


def test_a_dump_keeps_letters_readable() -> None:
    assert "name: Größe 東京\n" in dump_blueprint(Blueprint(name="Größe 東京"))


def test_a_dump_makes_every_default_explicit() -> None:
    dumped = dump_blueprint(Blueprint())
    for section in dataclasses.fields(Blueprint):
        assert f"{section.name}:" in dumped
        value = getattr(Blueprint(), section.name)
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                assert f"\n  {field.name}:" in dumped
