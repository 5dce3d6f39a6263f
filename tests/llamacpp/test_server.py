"""llama.cpp in its child process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.llamacpp.child import _environment
from chrysalis_mlx.llamacpp.server import LlamaServer
from tests import tiny
from tests.gguf.parity import export
from tests.inference.runs import endless_model


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("llamacpp")
    return export(tiny.tiny_llama(root / "model"), root / "model.gguf").path


@pytest.fixture(scope="module")
def server(gguf_file: Path) -> Iterator[LlamaServer]:
    with LlamaServer(gguf_file, context=256, threads=1) as running:
        yield running


def test_special_tokens_are_parsed_only_when_asked(server: LlamaServer) -> None:
    assert server.tokenize("<|im_end|>", parse_special=True) == [2]
    assert 2 not in server.tokenize("<|im_end|>")


def test_the_template_of_the_file_is_applied(server: LlamaServer) -> None:
    prompt = server.apply_template([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])
    assert prompt == "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"


def test_a_distribution_is_whole_sorted_and_repeatable(server: LlamaServer) -> None:
    ids, logprobs = server.next_token_logprobs([5, 6, 7], 512)
    assert sorted(ids.tolist()) == list(range(512))
    assert (ids.dtype, logprobs.dtype) == (np.int64, np.float32)
    assert np.all(np.diff(logprobs) <= 0)
    assert np.exp(logprobs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)
    few, top = server.next_token_logprobs([5, 6, 7], 10)
    assert few.tolist() == ids[:10].tolist()
    assert top == pytest.approx(logprobs[:10], abs=1e-4)


def test_a_distribution_exists_after_every_token(server: LlamaServer) -> None:
    """Also where the likeliest next token is half a character or the end token."""
    likeliest = set()
    for token in range(0, 512, 8):
        ids, _ = server.next_token_logprobs([token], 1)
        likeliest.add(int(ids[0]))
    half = set(server.tokenize("🦋", add_special=False)) | set(server.tokenize("東", add_special=False))
    assert likeliest & half


def test_the_probability_of_a_target_is_exact_however_improbable(server: LlamaServer) -> None:
    """Also of the end token, of half a character, and where only one token is reported beside it."""
    ids, logprobs = server.next_token_logprobs([5, 6, 7], 512)
    expected = dict(zip(ids.tolist(), logprobs.tolist(), strict=True))
    halves = server.tokenize("🦋東", add_special=False)
    for target in {2, int(ids[0]), int(ids[300]), int(ids[-1]), *halves}:
        top, few, found = server.target_logprobs([5, 6, 7], 1, target, 512)
        assert (top.tolist(), few.shape) == ([ids[0]], (1,))
        assert few[0] == pytest.approx(logprobs[0], abs=1e-5)
        assert found == pytest.approx(expected[target], abs=1e-5)


def test_a_generation_stops_at_the_end_token_alone(server: LlamaServer) -> None:
    start = server.tokenize("def")
    assert server.stops_at(start, 2)  # <|im_end|>, eos
    assert not server.stops_at(start, 1)  # <|im_start|>
    assert not server.stops_at(start, server.tokenize("a")[0])
    assert not server.stops_at(start, server.tokenize("🦋", add_special=False)[0])


def test_threads_do_not_wait_in_a_loop_unless_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert _environment()["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert _environment()["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert "GOMP_SPINCOUNT" not in _environment()


def test_greedy_text_is_the_chain_of_likeliest_tokens(server: LlamaServer) -> None:
    completion = server.complete([5, 6, 7], max_tokens=6, temperature=0, seed=1)
    tokens = [5, 6, 7]
    for token in completion.tokens:
        assert server.next_token_logprobs(tokens, 1)[0].tolist() == [token]
        tokens.append(token)
    assert len(completion.tokens) == 6 or completion.finish == "eos"


def test_sampling_follows_the_seed(server: LlamaServer) -> None:
    drawn = [server.complete("def", max_tokens=12, temperature=1.0, seed=seed).tokens for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_limit_ends_a_text(server: LlamaServer) -> None:
    completion = server.complete("def", max_tokens=12, temperature=1.0, seed=1)
    assert (completion.finish, len(completion.tokens)) == ("limit", 12)


def test_a_stream_is_the_completion_piece_by_piece(server: LlamaServer) -> None:
    sampling = {"temperature": 0.0}
    pieces = list(server.stream("def", max_tokens=12, seed=1, sampling=sampling))
    whole = server.complete("def", max_tokens=12, temperature=0, seed=1)
    assert "".join(piece.text for piece in pieces) == whole.text
    assert len([piece for piece in pieces if piece.text]) > 3
    assert [piece.finish for piece in pieces] == [*[None] * (len(pieces) - 1), whole.finish]
    assert pieces[-1].tokens == len(whole.tokens)
    assert [piece.tokens for piece in pieces] == sorted(piece.tokens for piece in pieces)


def test_a_stream_draws_as_it_is_told(server: LlamaServer) -> None:
    def text(**sampling: float) -> str:
        return "".join(piece.text for piece in server.stream("def", max_tokens=12, seed=5, sampling=sampling))

    greedy = text(temperature=0.0)
    assert (
        text(temperature=5.0, top_k=1) == text(temperature=5.0, top_p=0.0) == text(temperature=5, min_p=1.0) == greedy
    )
    assert text(temperature=5.0, top_k=0, top_p=1.0, min_p=0.0) != greedy
    assert text(temperature=0.0, repeat_penalty=5.0) != greedy


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    root = tmp_path_factory.mktemp("endless")
    file = export(endless_model(root / "model"), root / "model.gguf").path
    with LlamaServer(file, context=1 << 17, threads=1) as running:
        yield running


def test_a_stream_that_is_closed_makes_room_for_the_next(endless: LlamaServer) -> None:
    """Were it not stopped, the one slot would be taken for minutes."""
    for _ in range(3):
        with closing(endless.stream("def", max_tokens=None, seed=1, sampling={})) as pieces:
            assert sum(len(next(pieces).text) for _ in range(20)) > 0
    assert len(endless.complete("def", max_tokens=3, temperature=0, seed=1).tokens) == 3
    assert endless.log().count("cancel task") == 3
    assert endless.context == 1 << 17


def test_a_stream_ends_where_the_context_does(gguf_file: Path) -> None:
    with LlamaServer(gguf_file, context=256, threads=1) as server:
        last = list(server.stream([5] * 200, max_tokens=None, seed=1, sampling={"temperature": 0.0}))[-1]
        assert server.context == 256
        assert last.finish == "eos" or (last.finish, last.tokens) in {("context", 55), ("context", 56)}
        with pytest.raises(ExportError, match="exceeds the available context"):
            next(server.stream([5] * 300, max_tokens=1, seed=1, sampling={}))


def test_a_stream_says_when_llama_cpp_dies(tmp_path: Path, endless: LlamaServer) -> None:
    with LlamaServer(endless.file, context=1 << 15, threads=1) as server:
        pieces = server.stream("def", max_tokens=None, seed=1, sampling={})
        next(pieces)
        assert server._child.process is not None
        server._child.process.kill()
        with pytest.raises(ExportError, match=r"llama.cpp failed at /completion"):
            list(pieces)


def test_ctrl_c_at_the_terminal_does_not_reach_it(server: LlamaServer) -> None:
    assert server._child.process is not None
    assert os.getpgid(server._child.process.pid) != os.getpgid(0)


def test_too_long_a_prompt_is_an_error(server: LlamaServer) -> None:
    with pytest.raises(ExportError, match="exceeds the available context"):
        server.next_token_logprobs([5] * 300, 1)


def test_several_servers_one_after_another_without_a_word(gguf_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    seen = []
    for _ in range(2):
        with LlamaServer(gguf_file, context=64) as server:
            seen.append(server.next_token_logprobs([9, 8], 3)[0].tolist())
            process = server._child.process
        assert process is not None
        assert process.poll() == 0
        server.close()
    assert seen[0] == seen[1]
    assert capfd.readouterr() == ("", "")


def test_a_closed_server_says_so(gguf_file: Path) -> None:
    server = LlamaServer(gguf_file)
    with pytest.raises(ExportError, match="not running"):
        server.tokenize("x")
    assert server.log() == ""


def test_a_dead_llamacpp_is_an_error_and_not_a_hang(gguf_file: Path) -> None:
    with LlamaServer(gguf_file, context=64) as server:
        assert server._child.process is not None
        server._child.process.kill()
        server._child.process.wait()
        with pytest.raises(ExportError, match=r"llama.cpp failed at /tokenize"):
            server.tokenize("x")


def test_a_file_that_does_not_load_comes_with_llamacpps_own_words(gguf_file: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(gguf_file.read_bytes()[:-4096])
    with pytest.raises(ExportError, match="model is corrupted or incomplete"), LlamaServer(cut):
        pass
    with pytest.raises(ExportError, match="no such GGUF"), LlamaServer(tmp_path / "nothing.gguf"):
        pass
