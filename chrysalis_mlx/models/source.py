"""Where models come from: a local Hugging Face directory, a Hub id or a GGUF file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chrysalis_mlx.errors import ModelError
from chrysalis_mlx.models.directory import ModelDirectory
from chrysalis_mlx.models.tokenizer import Tokenizer
from chrysalis_mlx.run import sha256_file

HUB_TOKENIZER_FILES = ("*.json", "tokenizer.model")
HUB_FILES = (*HUB_TOKENIZER_FILES, "*.safetensors", "*.jinja")


def cache_directory() -> Path:
    """Where imported models are kept: $CHRYSALIS_CACHE, else the user's cache directory."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "chrysalis-mlx"
    return Path(os.environ.get("CHRYSALIS_CACHE") or default).absolute()


def resolve_model(source: str, revision: str | None = None) -> ModelDirectory:
    """Bring a model to this machine and open it.

    Args:
        source: a directory, a .gguf file (dequantized into the cache once) or a Hub id such as Qwen/Qwen3-0.6B.
        revision: commit, tag or branch of a Hub id.

    Raises:
        ModelError: it is none of these, cannot be had, or is incomplete.
    """
    return ModelDirectory.open(locate(source, revision, HUB_FILES))


def resolve_tokenizer(source: str, revision: str | None = None) -> Tokenizer:
    """Bring a model's tokenizer to this machine; of a Hub id nothing else is downloaded.

    Args:
        source: as `resolve_model`.
        revision: commit, tag or branch of a Hub id.

    Raises:
        ModelError: as `resolve_model`.
    """
    return Tokenizer.open(locate(source, revision, HUB_TOKENIZER_FILES))


def locate(source: str, revision: str | None, hub_files: Sequence[str]) -> Path:
    """The directory of a model; of a Hub id, with those files that match `hub_files`.

    Args:
        source, revision: as `resolve_model`.
        hub_files: globs; what is here already stays.

    Raises:
        ModelError: as `resolve_model`.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path.absolute()
    if path.is_file() and path.suffix == ".gguf":
        return _import_cached(path)
    if path.exists():
        fix = "give a Hugging Face directory, a .gguf file or a Hub id"
        raise ModelError("this file is no model", where=source, fix=fix)
    if source.endswith(".gguf") or path.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
        raise ModelError("the model is not there", where=source, fix="give a directory, a .gguf file or a Hub id")
    return _download(source, revision, hub_files)


def _import_cached(file: Path) -> Path:
    from chrysalis_mlx.gguf.reader import import_gguf

    directory = cache_directory() / "imported" / f"{file.stem}-{sha256_file(file)[:16]}"
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        import_gguf(file, directory)
    return directory


@contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """The progress bars of the Hub's client, on or off for a while; by itself it draws some into a log, too."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _download(repository: str, revision: str | None, files: Sequence[str]) -> Path:
    """A snapshot from the Hub (HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are honoured)."""
    from huggingface_hub import snapshot_download

    try:
        with progress_bars(sys.stderr.isatty()):
            return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # the Hub's client hands on whatever its HTTP library raises
        raise _explained(error, repository, revision) from error


def _explained(error: Exception, repository: str, revision: str | None) -> ModelError:
    """The error to raise instead of one of the Hub's client."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # What is not in the cache either has the Hub's answer as its cause.
    answers = [cause for cause in (error, error.__cause__) if isinstance(cause, HfHubHTTPError)]
    status = answers[0].response.status_code if answers else 0
    if isinstance(error, GatedRepoError):
        what, fix = "the model is gated", "accept its licence on its page, then log in with: hf auth login"
    elif isinstance(error, RevisionNotFoundError):
        what = f"the model has no revision '{revision}'"
        fix = "set model.revision in the blueprint to one of its branches, tags or commits, or leave it out"
    elif isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        what = "the Hub knows no such model"
        fix = "check the spelling; a local model needs a path that exists; a private one needs: hf auth login"
    elif isinstance(error.__cause__, OfflineModeIsEnabled):
        what = "not all of the model is in the cache of this machine, and HF_HUB_OFFLINE is set"
        fix = "unset HF_HUB_OFFLINE until it is downloaded, or give a local directory"
    elif status == 401:
        what, fix = (
            "the Hub does not accept the token",
            "log in again with: hf auth login; HF_TOKEN, where set, comes first",
        )
    elif status == 429 or status >= 500:
        what = f"the Hub is too busy or has trouble of its own (HTTP status {status})"
        fix = "wait a little and run again: files that are whole are kept"
    else:
        what = f"the model cannot be downloaded: {' '.join(str(error).split())}"
        fix = "check the network, or give a local directory; files that are whole are kept, run again to go on"
    return ModelError(what, where=repository, fix=fix)
