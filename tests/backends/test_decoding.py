"""Texts continued with a cache of keys and values: what the whole text, computed again, would have given."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
import transformers

from chrysalis_mlx import backends
from chrysalis_mlx.backends.base import Choose, Engine
from chrysalis_mlx.backends.mlx import decoding as mlx_decoding
from chrysalis_mlx.backends.torch import decoding as torch_decoding
from chrysalis_mlx.batches.packing import Batch, assemble
from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.errors import ModelError
from tests import tiny
from tests.backends.cases import ROW, TOLERANCE, Case, adapted, assert_same, difference, packed

Builder = Callable[[Path], Path]
Tokens = npt.NDArray[np.int32]
PROMPT, STEPS, WINDOW = 11, 14, 8
DECODING = {"mlx": mlx_decoding, "torch": torch_decoding}

BUILDERS: dict[str, Builder] = {
    "llama": partial(tiny.tiny_llama, bias=True),
    "qwen2": tiny.tiny_qwen2,
    "qwen3": tiny.tiny_qwen3,
    "qwen3-moe": tiny.tiny_qwen3_moe,
    "gemma2": partial(tiny.tiny_gemma2, sliding_window=ROW),
    "gemma3": tiny.tiny_gemma3,
    "phi3": tiny.tiny_phi3,
    "olmo2": tiny.tiny_olmo2,
    "granite": tiny.tiny_granite,
    "cohere": tiny.tiny_cohere,
    "cohere2": tiny.tiny_cohere2,
    "smollm3": tiny.tiny_smollm3,
}
# Windows that end inside the prompt, of which mlx-lm knows nothing.
WINDOWS: dict[str, Builder] = {
    "gemma2": tiny.tiny_gemma2,
    "mistral": partial(tiny.tiny_mistral, pre="smollm", sliding_window=WINDOW),
    "phi3": partial(tiny.tiny_phi3, sliding_window=WINDOW),
    "qwen2": partial(tiny.tiny_qwen2, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
}
LONGROPE: dict[str, Any] = {
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
        "long_factor": [1.0, 1.5, 2.5, 4.0, 6.0, 9.0, 13.0, 20.0],
        "factor": 32.0,
    },
    "original_max_position_embeddings": 16,
}


@pytest.fixture(scope="module", params=BUILDERS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    directory = BUILDERS[request.param](tmp_path_factory.mktemp(request.param) / "model")
    return adapted(directory, "dora", ["self_attn.*"])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_llama(tmp_path_factory.mktemp("decoding") / "model", bias=True)


class Recorder:
    """Chooses the likeliest token, or those that are written down for it, and remembers what it saw."""

    def __init__(self, script: Iterable[Tokens] | None = None) -> None:
        self.seen: list[npt.NDArray[np.float32]] = []
        self._script = None if script is None else iter(script)

    def __call__(self, logits: npt.NDArray[np.float32]) -> Tokens:
        assert logits.dtype == np.float32
        self.seen.append(logits)
        return logits.argmax(axis=-1).astype(np.int32) if self._script is None else next(self._script)

    def logits(self) -> npt.NDArray[np.float32]:
        """(B, steps, V)."""
        return np.stack(self.seen, axis=1)


def prompts(texts: int, length: int = PROMPT) -> Tokens:
    return np.random.default_rng(length).integers(3, 500, (texts, length)).astype(np.int32)


def script(texts: int, steps: int = STEPS) -> Tokens:
    """(steps, B) tokens that no model would choose."""
    return np.random.default_rng(steps).integers(3, 500, (steps, texts)).astype(np.int32)


def run(engine: Engine, begun: Tokens, choose: Choose, steps: int = STEPS) -> Tokens:
    """(B, T + steps): the prompts with what follows."""
    chosen = list(itertools.islice(engine.continued(begun, choose), steps))
    assert [tokens.shape for tokens in chosen] == [(len(begun),)] * steps
    return np.concatenate([begun, np.stack(chosen, axis=1)], axis=1)


def whole(texts: Tokens) -> Batch:
    rows = [[Segment(text, np.ones(len(text), np.bool_))] for text in texts]
    return assemble(rows, texts.shape[1])


def computed_again(engine: Engine, texts: Tokens, steps: int = STEPS) -> npt.NDArray[np.float32]:
    """(B, steps, V) logits of the last `steps` tokens, each from all that is before it and no cache."""
    return engine.logits(whole(texts))[:, -steps - 1 : -1]


def caches() -> list[transformers.DynamicCache]:
    """Those of torch that are there now."""
    return [thing for thing in gc.get_objects() if type(thing) is transformers.DynamicCache]


@pytest.mark.parametrize("name", backends.NAMES)
def test_the_likeliest_tokens_are_those_of_the_whole_text_computed_again(case: Case, name: str) -> None:
    engine, greedy = case.engine(name), Recorder()
    text = prompts(1)
    for chosen in itertools.islice(engine.continued(text, greedy), STEPS):
        logits = engine.logits(whole(text))[:, -1]
        assert difference(greedy.seen[-1], logits) < TOLERANCE
        assert chosen.tolist() == logits.argmax(axis=-1).tolist()
        text = np.concatenate([text, chosen[:, None]], axis=1)
    assert text.shape == (1, PROMPT + STEPS)


def test_both_backends_continue_several_texts_alike_with_the_adapter(case: Case) -> None:
    seen = []
    for name in backends.NAMES:
        engine, recorder = case.engine(name), Recorder(script(3))
        texts = run(engine, prompts(3), recorder)
        np.testing.assert_array_equal(texts[:, PROMPT:], script(3).T)
        assert difference(recorder.logits(), computed_again(engine, texts)) < TOLERANCE
        seen.append(recorder.logits())
    assert difference(seen[0], seen[1]) < TOLERANCE
    base = Recorder(script(3))
    run(backends.load("mlx")(case.directory), prompts(3), base)
    assert difference(base.logits(), seen[0]) > 1e-2


@pytest.mark.parametrize("case", ["llama", "qwen3-moe", "gemma2", "gemma3", "phi3"], indirect=True)
@pytest.mark.parametrize("name", backends.NAMES)
def test_texts_side_by_side_are_those_one_by_one(case: Case, name: str) -> None:
    engine, together = case.engine(name), Recorder()
    texts = run(engine, prompts(2), together)
    for number, text in enumerate(prompts(2)):
        alone = Recorder()
        np.testing.assert_array_equal(run(engine, text[None], alone)[0], texts[number])
        assert difference(alone.logits()[0], together.logits()[number]) < TOLERANCE


@pytest.mark.parametrize("case", ["llama", "gemma2", "gemma3", "cohere2"], indirect=True)
@pytest.mark.parametrize("size", [1, 3, 7, 10])  # below, about and beyond the window of 8
@pytest.mark.parametrize("name", backends.NAMES)
def test_the_prompt_may_go_through_in_parts(case: Case, name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, recorder = case.engine(name), Recorder(script(2, 5))
    monkeypatch.setattr(DECODING[name], "PREFILL", 2 * size)  # of two texts
    texts = run(engine, prompts(2, 26), recorder, 5)
    assert difference(recorder.logits(), computed_again(engine, texts, 5)) < TOLERANCE


@pytest.mark.parametrize("build", [tiny.tiny_llama, tiny.tiny_gemma3])
@pytest.mark.parametrize("name", backends.NAMES)
def test_a_prompt_of_many_parts_and_a_text_of_many_tokens(name: str, build: Builder, tmp_path: Path) -> None:
    engine, recorder = adapted(build(tmp_path), "lora", ["all-linear"]).engine(name), Recorder()
    begun = prompts(1, 2100)
    assert begun.shape[1] > 4 * DECODING[name].PREFILL
    texts = run(engine, begun, recorder, 4)
    assert difference(recorder.logits(), computed_again(engine, texts, 4)) < TOLERANCE
    recorder = Recorder(script(1, 260))  # beyond what mlx-lm's caches make room for at once
    texts = run(engine, prompts(1, 1), recorder, 260)
    assert difference(recorder.logits(), computed_again(engine, texts, 260)) < TOLERANCE


@pytest.mark.parametrize("architecture", WINDOWS)
def test_torch_keeps_windows_of_which_mlx_lm_knows_nothing(architecture: str, tmp_path: Path) -> None:
    engine, recorder = adapted(WINDOWS[architecture](tmp_path), "dora", ["all-linear"]).engine("torch"), Recorder()
    going = engine.continued(prompts(2), Recorder())
    next(going)
    kept = {layer.keys.shape[2] for cache in caches() for layer in cache.layers}
    assert kept in (
        {WINDOW - 1},
        {WINDOW - 1, PROMPT},
    )  # what a token sees beside itself; all, in layers without window
    going.close()
    texts = run(engine, prompts(2), recorder)
    assert difference(recorder.logits(), computed_again(engine, texts)) < TOLERANCE


def test_mlx_refuses_to_go_beyond_a_window_that_mlx_lm_does_not_have(tmp_path: Path) -> None:
    engine, greedy = backends.load("mlx")(tiny.tiny_gemma2(tmp_path, sliding_window=16)), Recorder()
    texts = engine.continued(prompts(1), greedy)
    for _ in range(PROMPT, 17):  # the passes over 11 to 16 tokens
        next(texts)
    with pytest.raises(ModelError, match=r"texts of 17 tokens exceed the model's sliding window of 16(.|\n)*--backend"):
        next(texts)
    assert len(greedy.seen) == 6


@pytest.mark.parametrize("length", [11, 16, 17, 20])
def test_angles_that_change_with_the_length_of_the_text_change_for_all_of_it(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_decoding, "PREFILL", 8)
    engine, greedy = backends.load("torch")(tiny.tiny_phi3(tmp_path, **LONGROPE)), Recorder()
    text = prompts(1, length)
    for chosen in itertools.islice(engine.continued(text, greedy), 10):
        assert difference(greedy.seen[-1], engine.logits(whole(text))[:, -1]) < TOLERANCE, text.shape
        text = np.concatenate([text, chosen[:, None]], axis=1)


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
@pytest.mark.parametrize("name", backends.NAMES)
def test_every_kind_of_adapter_is_applied_and_no_dropout(llama: Path, name: str, kind: Any) -> None:
    options = {} if kind == "full" else {"dropout": 0.5}
    case = adapted(llama, kind, ["all-linear"], **options)
    engine, recorder = case.engine(name, gradient_checkpointing=True), Recorder()
    engine.step(packed(), 1e-3)  # it continues with the adapter as it is now
    texts = run(engine, prompts(2), recorder)
    assert difference(recorder.logits(), computed_again(engine, texts)) < TOLERANCE
    before, base = Recorder(), Recorder()
    run(case.engine(name), prompts(2), before)
    run(backends.load(name)(llama), prompts(2), base)
    assert difference(before.logits()[:, 0], recorder.logits()[:, 0]) > 1e-4
    assert difference(base.logits()[:, 0], recorder.logits()[:, 0]) > 1e-2


@pytest.mark.parametrize("name", backends.NAMES)
def test_a_base_that_mlx_lm_quantized_is_continued_too(llama: Path, name: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    tiny.quantized(llama, tmp_path / "model")
    engine, recorder = adapted(tmp_path / "model", "dora", ["all-linear"]).engine(name), Recorder()
    texts = run(engine, prompts(2), recorder)
    assert difference(recorder.logits(), computed_again(engine, texts)) < TOLERANCE


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("name", "kind"), [("mlx", "dora"), ("torch", "dora"), ("mlx", "full")])
def test_a_half_precision_base_gives_float32_logits(llama: Path, name: str, kind: Any, dtype: str) -> None:
    case, recorder, exact = adapted(llama, kind, ["all-linear"]), Recorder(script(2)), Recorder(script(2))
    engine = case.engine(name, dtype=dtype)
    texts = run(engine, prompts(2), recorder)
    run(case.engine(name), prompts(2), exact)
    assert difference(recorder.logits(), computed_again(engine, texts)) < 3e-2
    assert 1e-5 < difference(recorder.logits(), exact.logits()) < 5e-2


@pytest.mark.parametrize("kind", ["dora", "full"])
@pytest.mark.parametrize("name", backends.NAMES)
def test_other_calls_between_two_tokens_change_nothing(llama: Path, name: str, kind: Any) -> None:
    case = adapted(llama, kind, ["all-linear"], **({} if kind == "full" else {"dropout": 0.5}))
    engine, other = case.engine(name), prompts(2, PROMPT + 3)
    expected = [run(engine, begun, Recorder()) for begun in (prompts(2), other)]
    recorders = Recorder(), Recorder()
    pairs = zip(engine.continued(prompts(2), recorders[0]), engine.continued(other, recorders[1]), strict=True)
    found = []
    for pair in itertools.islice(pairs, STEPS):
        found.append(pair)
        engine.loss(packed()[1])
        engine.gradients(packed()[:1])  # with dropout
    for number, texts in enumerate(expected):
        np.testing.assert_array_equal(np.stack([pair[number] for pair in found], axis=1), texts[:, -STEPS:])
        assert difference(recorders[number].logits(), computed_again(engine, texts)) < TOLERANCE


@pytest.mark.parametrize("kind", ["dora", "full"])
def test_in_mlx_a_text_goes_on_with_the_adapter_that_it_began_with(llama: Path, kind: Any) -> None:
    engine = adapted(llama, kind, ["all-linear"]).engine("mlx")
    engine.gradients(packed())  # from here on a step is compiled
    expected = run(engine, prompts(2), Recorder())
    texts, found = engine.continued(prompts(2), Recorder()), []
    for _ in range(STEPS):
        found.append(next(texts))
        engine.step(packed(), 1e-2)
    np.testing.assert_array_equal(np.stack(found, axis=1), expected[:, PROMPT:])
    assert run(engine, prompts(2), Recorder()).tolist() != expected.tolist()


@pytest.mark.parametrize("name", backends.NAMES)
def test_each_token_may_be_asked_for_by_another_thread(llama: Path, name: str) -> None:
    engine = adapted(llama, "dora", ["all-linear"]).engine(name)
    expected = run(engine, prompts(1), Recorder())[:, PROMPT:]
    texts, found = engine.continued(prompts(1), Recorder()), []
    for _ in range(STEPS):
        thread = threading.Thread(target=lambda: found.append(next(texts)))
        thread.start()
        thread.join()
    np.testing.assert_array_equal(np.stack(found, axis=1), expected)


def test_mlx_lets_go_of_the_cache_and_holds_nothing_for_each_token(llama: Path) -> None:
    engine = adapted(llama, "dora", ["all-linear"]).engine("mlx")
    run(engine, prompts(4), Recorder(), 2)
    before = mx.get_active_memory()
    texts, held = engine.continued(prompts(4), lambda logits: logits.argmax(axis=-1).astype(np.int32)), []
    for _ in range(200):  # less than what the caches make room for at once
        next(texts)
        held.append(mx.get_active_memory())
    cache = 2 * 2 * 4 * 2 * 256 * 16 * 4  # keys and values, layers, texts, heads, room, head_dim, bytes
    assert held[0] - before == pytest.approx(cache, rel=0.01)
    assert max(held) <= held[0] + 1000
    texts.close()
    assert mx.get_active_memory() <= before + 1000


def test_in_mlx_a_prompt_in_parts_holds_the_scores_of_one_part(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, peaks = backends.load("mlx")(llama), []
    for size in (1024, 32):
        monkeypatch.setattr(mlx_decoding, "PREFILL", size)
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        run(engine, prompts(1, 1024), Recorder(), 1)
        peaks.append(engine.peak_memory() - before)
    assert peaks[1] < 0.1 * peaks[0]


def test_torch_lets_go_of_the_cache_and_leaves_gradients_on(llama: Path) -> None:
    engine = adapted(llama, "dora", ["all-linear"]).engine("torch")
    expected = engine.gradients(packed())
    before = len(caches())
    texts = engine.continued(prompts(2), Recorder())
    for _ in range(3):
        next(texts)
    assert len(caches()) == before + 1
    result, gradients = engine.gradients(packed())  # while the text waits to go on
    assert result == expected[0]
    assert_same(gradients, expected[1])
    texts.close()
    assert len(caches()) == before


@pytest.mark.parametrize("name", backends.NAMES)
def test_nothing_is_computed_before_it_is_asked_for(llama: Path, name: str) -> None:
    greedy = Recorder()
    texts = backends.load(name)(llama).continued(prompts(1), greedy)
    assert len(greedy.seen) == 0
    for count in (1, 2):
        next(texts)
        assert len(greedy.seen) == count
