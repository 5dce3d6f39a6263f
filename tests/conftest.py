"""What tests of many rooms share: one tiny model and one tokenizer, made once and never written to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chrysalis_mlx.backends.mlx import blas
from chrysalis_mlx.models.tokenizer import Tokenizer
from tests import tiny

# Before any test imports mlx: with another BLAS than the program's, sums round otherwise and no byte can be compared.
blas.preload()


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests leave the user's cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHRYSALIS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of two layers, 512 tokens and 512 positions."""
    return tiny.tiny_llama(tmp_path_factory.mktemp("shared") / "tiny-llama")


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A byte-level BPE; needs no framework."""
    return Tokenizer.open(tiny.byte_level_bpe(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="session")
def spm_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """SentencePiece with byte fallback; puts <s> before every text."""
    return Tokenizer.open(tiny.sentencepiece(tmp_path_factory.mktemp("sentencepiece")))
