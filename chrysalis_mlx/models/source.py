"""Where models come from: a local Hugging Face directory, a Hub id or a GGUF file."""

from __future__ import annotations

import os
from collections.abc import Sequence
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


def _download(repository: str, revision: str | None, files: Sequence[str]) -> Path:
    """A snapshot from the Hub (HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are honoured)."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))
    except GatedRepoError as error:
        fix = "accept its licence on its page, then log in with: hf auth login"
        raise ModelError("the model is gated", where=repository, fix=fix) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"the model has no revision '{revision}'", where=repository) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        fix = "check the spelling; a local model needs a path that exists; a private one needs: hf auth login"
        raise ModelError("the Hub knows no such model", where=repository, fix=fix) from error
    except Exception as error:  # the Hub's client hands on whatever its HTTP library raises
        fix = "check the network, or give a local directory; finished files are kept, run again to go on"
        raise ModelError(f"the model cannot be downloaded: {error}", where=repository, fix=fix) from error
