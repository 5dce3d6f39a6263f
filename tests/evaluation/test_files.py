"""A GGUF in llama.cpp as a subject: what it answers depends on nothing that it was asked before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from chrysalis_mlx.batches.tokens import Segment
from chrysalis_mlx.evaluation.predictors import FilePredictor
from chrysalis_mlx.evaluation.prompts import Prompt
from chrysalis_mlx.llamacpp.server import LlamaServer
from tests import tiny
from tests.evaluation.engines import segment
from tests.gguf.parity import export

V = 512


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    return export(tiny.tiny_llama(root / "model", hidden=128, intermediate=384), root / "model.gguf").path


def predictor(server: LlamaServer) -> FilePredictor:
    return FilePredictor(server, V, (2,), temperature=9.0, seed=3)


def asked(file: Path, *texts: Sequence[int]) -> list[np.ndarray]:
    """Log p of the last eight tokens of each text, all from one server."""
    with LlamaServer(file, context=256, threads=1, precise=True) as server:
        made = [[segment(text, len(text) - 8)] for text in texts]
        return [row[0] for row in predictor(server).target_logprobs(made)]


def test_a_text_is_by_itself_though_it_begins_as_the_last_one(gguf_file: Path) -> None:
    tokens = np.random.Generator(np.random.PCG64(0)).integers(3, V, 100).tolist()
    alone = asked(gguf_file, tokens)
    after_others = asked(gguf_file, tokens[:30], tokens[:77] + tokens[:10], tokens)
    assert alone[0].tolist() == after_others[-1].tolist()


def test_a_sliding_window_remembers_nothing_of_another_text(tmp_path: Path) -> None:
    """llama.cpp keeps states of such a model and takes them up again, also for a text that begins with other tokens."""
    model = tiny.tiny_gemma2(tmp_path / "model", sliding_window=32, query_pre_attn_scalar=16)
    file = export(model, tmp_path / "model.gguf").path
    first, second = np.random.Generator(np.random.PCG64(0)).integers(3, V, (2, 32)).tolist()
    spread = [Segment(np.array(text, np.int32), np.arange(32) % 2 == 1) for text in (first, second)]
    with LlamaServer(file, context=64, threads=1, precise=True) as server:
        after_another = predictor(server).target_logprobs([spread])[0][1]
    with LlamaServer(file, context=64, threads=1, precise=True) as server:
        alone = predictor(server).target_logprobs([spread[1:]])[0][0]
    assert after_another.tolist() == alone.tolist()


def test_the_numbers_are_those_of_the_whole_distribution(gguf_file: Path) -> None:
    tokens = np.random.Generator(np.random.PCG64(1)).integers(3, V, 40).tolist()
    (found,) = asked(gguf_file, tokens)
    with LlamaServer(gguf_file, context=256, threads=1, precise=True) as server:
        for place, value in zip(range(32, 40), found.tolist(), strict=True):
            ids, log_p = server.next_token_logprobs(tokens[:place], V)
            assert value == pytest.approx(float(log_p[ids == tokens[place]][0]), abs=1e-4)


def test_it_goes_on_and_answers(gguf_file: Path) -> None:
    with LlamaServer(gguf_file, context=256, threads=1, precise=True) as server:
        (greedy,) = predictor(server).continuations([[5, 6, 7]], 6)
        again, sampled = predictor(server).answers(Prompt("?", (5, 6, 7), 6))
        assert again == greedy
        assert len(greedy) == 6
        assert predictor(server).answers(Prompt("?", (5, 6, 7), 6)) == (greedy, sampled)
        ids = [int(server.next_token_logprobs([5, 6, 7, *greedy[:n]], 1)[0][0]) for n in range(6)]
        assert ids == greedy
        assert sampled != greedy
