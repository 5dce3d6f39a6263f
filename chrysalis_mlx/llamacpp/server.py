"""A GGUF in embedded llama.cpp: tokens, distributions and text, exactly as users of the file will get them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ExportError
from chrysalis_mlx.llamacpp.child import Child, Settings
from chrysalis_mlx.llamacpp.client import Client, RefusedError

T = TypeVar("T")

_FORCE = 1e4  # a bias in nats that makes any token the likeliest
_LEAST = -104.0  # below the smallest probability of a float32; llama.cpp says -3.4e38 of one that is 0
_SAMPLERS = ("penalties", "top_k", "top_p", "min_p", "temperature")  # llama.cpp's order, without the exotic ones


@dataclass(frozen=True)
class Completion:
    """Generated text.

    Attributes:
        text: without the end token.
        tokens: ids of the generated tokens.
        finish: "eos" (the model ended) or "limit" (max_tokens).
    """

    text: str
    tokens: list[int]
    finish: str


@dataclass(frozen=True)
class Piece:
    """Some characters of a text that is being generated.

    Attributes:
        text: whole characters; may be empty.
        tokens: how many were generated so far.
        finish: of the last piece alone: "eos" (the model ended), "limit" (max_tokens) or "context" (it is full).
    """

    text: str
    tokens: int
    finish: str | None = None


class LlamaServer:
    """llama.cpp with one GGUF loaded; a context manager.

    Args:
        file: the GGUF.
        context: tokens of context, prompt and answer together; 0 takes what the model was trained with.
        threads: processor threads; None takes all cores.
        lora: an adapter GGUF to apply, at scale 1.
        precise: keep keys and values in float32 and leave flash attention off, to compare with another implementation.

    Raises:
        ExportError: the file cannot be loaded (with llama.cpp's own last lines), or a request fails.
    """

    def __init__(
        self,
        file: Path,
        *,
        context: int = 2048,
        threads: int | None = None,
        lora: Path | None = None,
        precise: bool = False,
    ) -> None:
        self.file = Path(file)
        settings = Settings(
            str(self.file),
            context=context,
            threads=threads,
            lora="" if lora is None else str(lora),
            precise=precise,
            key=secrets.token_hex(16),
        )
        self._child = Child(settings)
        self._letter_id: int | None = None
        self._forgets = False

    def __enter__(self) -> LlamaServer:
        self._child.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop llama.cpp and wait for it; a second call does nothing."""
        self._child.close()

    def log(self) -> str:
        """llama.cpp's warnings and errors so far."""
        return self._child.log()

    @cached_property
    def context(self) -> int:
        """Tokens that fit, prompt and answer together."""
        path = "/props"
        return int(self._ask(path, lambda client: client.get(path))["default_generation_settings"]["n_ctx"])

    def forget(self) -> None:
        """Let the next request compute its whole prompt, whatever was asked before: sums round by where they begin."""
        self._forgets = True

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text.

        Args:
            text: any text.
            add_special: add the tokens that the model wants at the beginning and end (BOS, EOS).
            parse_special: read `<|im_start|>` and the like as the control token, as Hugging Face tokenizers do.
        """
        request = {"content": text, "add_special": add_special, "parse_special": parse_special}
        return [int(token) for token in self._post("/tokenize", request)["tokens"]]

    def apply_template(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt that the GGUF's own chat template makes of [{"role": ..., "content": ...}, ...]."""
        return str(self._post("/apply-template", {"messages": [dict(message) for message in messages]})["prompt"])

    def next_token_logprobs(
        self, token_ids: Sequence[int], top: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The model's distribution of the token after `token_ids`, before any sampler.

        Args:
            token_ids: the text so far, taken as it is (no BOS is added); what it shares with the last call is reused.
            top: how many of the most probable tokens; the vocabulary size gives all.

        Returns:
            ids and natural log probabilities, both (top,), most probable first.
        """
        found = self._forced(token_ids, top, self._letter())
        if found is None:
            raise ExportError(f"llama.cpp gave no distribution for {len(token_ids)} tokens", where=self.file)
        return found[0], found[1]

    def target_logprobs(
        self, token_ids: Sequence[int], top: int, target: int, vocabulary: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], float]:
        """As `next_token_logprobs`, and the log probability of one token, however improbable.

        Args:
            target: id of the token.
            vocabulary: its size; all of it is asked for where the target is half a character and not among the `top`.

        Returns:
            ids and natural log probabilities, both (top,), and the target's.
        """
        found = self._forced(token_ids, top, target)
        if found is not None:
            return found
        ids, logprobs = self.next_token_logprobs(token_ids, top)
        everything = (ids, logprobs) if target in ids else self.next_token_logprobs(token_ids, vocabulary)
        return ids, logprobs, float(everything[1][everything[0] == target][0])

    def stops_at(self, token_ids: Sequence[int], token: int) -> bool:
        """Whether a generation that goes on from `token_ids` with `token` ends there."""
        answer = self._post(
            "/completion",
            {
                "prompt": [int(id) for id in token_ids],
                "n_predict": 2,
                "temperature": 0.0,
                "samplers": ["temperature"],
                "logit_bias": [[int(token), _FORCE]],
                "cache_prompt": True,
            },
        )
        return bool(answer["stop_type"] == "eos")

    def _forced(
        self, token_ids: Sequence[int], top: int, token: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], float] | None:
        """The distribution's `top` and the log probability of `token`, which is made the next one.

        None where the token is half a character: llama.cpp reports nothing before the character is whole.
        """
        request = {
            "prompt": [int(id) for id in token_ids],
            "n_predict": 1,
            "n_probs": top,
            "temperature": 0.0,
            "samplers": ["temperature"],
            "post_sampling_probs": False,  # of the untouched logits: the bias below does not show in them
            "logit_bias": [[int(token), _FORCE]],
            "cache_prompt": self._remembers(),
        }
        answer = self._post("/completion", request)
        if answer.get("truncated"):
            raise ExportError(f"llama.cpp has no room for {len(token_ids)} tokens", where=self.file)
        if not answer.get("completion_probabilities"):
            return None
        sampled = answer["completion_probabilities"][0]
        rows = sampled["top_logprobs"]
        ids = np.array([row["id"] for row in rows], dtype=np.int64)
        # Where the logits are not numbers, they come as null, and no bias makes a token the likeliest.
        own = sampled["logprob"] if sampled["id"] == token else None
        logprobs = np.maximum(np.array([own, *(row["logprob"] for row in rows)], dtype=np.float64), _LEAST)
        # llama.cpp adds up 49,152 probabilities in float32 and loses 1e-4 of them: no sum may exceed 1.
        logprobs -= max(0.0, float(np.log(np.exp(logprobs[1:]).sum())))
        return ids, logprobs[1:].astype(np.float32), float(logprobs[0])

    def complete(self, prompt: str | Sequence[int], *, max_tokens: int, temperature: float, seed: int) -> Completion:
        """Continue a text or a list of token ids; temperature 0 is greedy. Control tokens in a text are parsed."""
        request = {
            "prompt": prompt if isinstance(prompt, str) else [int(token) for token in prompt],
            "n_predict": max_tokens,
            "temperature": temperature,
            "samplers": ["temperature"],
            "seed": seed,
            "cache_prompt": self._remembers(),
            "return_tokens": True,
        }
        answer = self._post("/completion", request)
        return Completion(
            text=str(answer["content"]),
            tokens=[int(token) for token in answer["tokens"]],
            finish=str(answer["stop_type"]),
        )

    def stream(
        self, prompt: str | Sequence[int], *, max_tokens: int | None, seed: int, sampling: Mapping[str, float]
    ) -> Generator[Piece, None, None]:
        """As `complete`, piece by piece. Closing the iterator stops the generation.

        Args:
            max_tokens: None goes on to the end of the text or of the context.
            sampling: temperature, top_k, top_p, min_p and repeat_penalty; llama.cpp's own, or the file's, where unsaid.
        """
        request = {
            "prompt": prompt if isinstance(prompt, str) else [int(token) for token in prompt],
            "n_predict": -1 if max_tokens is None else max_tokens,
            **sampling,
            "samplers": _SAMPLERS,
            "seed": seed,
            "cache_prompt": True,
        }
        path = "/completion"
        events = self._ask(path, lambda client: client.stream(path, request))
        try:
            while True:
                event = self._ask(path, lambda client: next(events, None))
                if event is None:
                    raise self._failed(path, "the text breaks off")
                tokens, finish = int(event["tokens_predicted"]), None
                if event["stop"]:
                    full = event["stop_type"] == "limit" and tokens != max_tokens
                    finish = "context" if full else str(event["stop_type"])
                yield Piece(str(event["content"]), tokens, finish)
                if finish is not None:
                    return
        finally:
            events.close()

    def _remembers(self) -> bool:
        """Whether a request reuses what it shares with the last one."""
        forgets, self._forgets = self._forgets, False
        return not forgets

    def _letter(self) -> int:
        if self._letter_id is None:
            self._letter_id = self.tokenize("a", add_special=False)[-1]
        return self._letter_id

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._ask(path, lambda client: client.post(path, body))

    def _ask(self, path: str, ask: Callable[[Client], T]) -> T:
        """What `ask` gives; what goes wrong is told with the file's name."""
        if self._child.process is None:
            raise ExportError("llama.cpp is not running", where=self.file, fix="use LlamaServer in a with statement")
        try:
            return ask(Client(self._child.address, self._child.settings.key))
        except RefusedError as error:
            raise ExportError(f"llama.cpp refused {path}: {error}", where=self.file) from None
        except (OSError, ValueError) as error:
            raise self._failed(path, error) from error

    def _failed(self, path: str, reason: object) -> ExportError:
        return ExportError(f"llama.cpp failed at {path}: {reason}\n{self._child.tail()}", where=self.file)
