"""A GGUF in embedded llama.cpp: tokens, distributions and text, exactly as users of the file will get them.

llama.cpp runs in a child process (`process`), because it writes to the terminal past Python, keeps its memory,
and ends the whole process when one of its assertions fails.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.errors import ExportError

_LOG_LINES = 12
_REQUEST_SECONDS = 900.0  # one long prompt through a 7B model on a slow processor
_SHUTDOWN_SECONDS = 10.0
_FORCE = 1e4  # a bias in nats that makes any token the likeliest
_LEAST = -104.0  # below the smallest probability of a float32; llama.cpp says -3.4e38 of one that is 0


@dataclass(frozen=True)
class Completion:
    """Generated text.

    Attributes:
        text: without the end token and without the stop string.
        tokens: ids of the generated tokens.
        finish: "eos" (the model ended), "limit" (max_tokens) or "word" (a stop string).
    """

    text: str
    tokens: list[int]
    finish: str


class LlamaServer:
    """llama.cpp with one GGUF loaded; a context manager.

    Args:
        file: the GGUF.
        context: tokens of context, prompt and answer together; 0 takes what the model was trained with.
        threads: processor threads; None takes all cores.
        lora: adapter GGUFs to apply, at scale 1.
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
        lora: Path | Sequence[Path] | None = None,
        precise: bool = False,
    ) -> None:
        self.file = Path(file)
        self._key = secrets.token_hex(16)
        self._lora = [] if lora is None else [lora] if isinstance(lora, Path) else list(lora)
        self._settings = {
            "file": str(self.file),
            "context": context,
            "threads": threads or os.cpu_count() or 1,
            "lora": [str(path) for path in self._lora],
            "precise": precise,
            "key": self._key,
        }
        self._log: IO[bytes] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._address = ""
        self._letter_id: int | None = None

    def __enter__(self) -> LlamaServer:
        for path in [self.file, *self._lora]:
            if not path.is_file():
                raise ExportError("there is no such GGUF file", where=path)
        self._log = tempfile.TemporaryFile()
        script = Path(__file__).with_name("process.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=_environment(),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(self._settings) + "\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                if line.startswith("http://"):
                    self._address = line.strip()
                    return self
            raise BrokenPipeError
        except OSError:
            log = self.log()
            self.close()
            tail = "\n".join(log.splitlines()[-_LOG_LINES:]) or "llama.cpp said nothing"
            raise ExportError(f"llama.cpp cannot load the file:\n{tail}", where=self.file) from None
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop llama.cpp and wait for it; a second call does nothing."""
        if self._process is not None:
            process, self._process = self._process, None
            try:
                process.communicate(timeout=_SHUTDOWN_SECONDS)  # closes its standard input
            except (subprocess.TimeoutExpired, OSError):
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None and not pipe.closed:
                    pipe.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def log(self) -> str:
        """llama.cpp's warnings and errors so far."""
        if self._log is None:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", errors="replace")

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
            "cache_prompt": True,
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

    def complete(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
    ) -> Completion:
        """Continue a text or a list of token ids; temperature 0 is greedy. Control tokens in a text are parsed."""
        request = {
            "prompt": prompt if isinstance(prompt, str) else [int(token) for token in prompt],
            "n_predict": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "samplers": ["top_p", "temperature"],
            "seed": seed,
            "stop": list(stop),
            "cache_prompt": True,
            "return_tokens": True,
        }
        answer = self._post("/completion", request)
        return Completion(
            text=str(answer["content"]),
            tokens=[int(token) for token in answer["tokens"]],
            finish=str(answer["stop_type"]),
        )

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
    ) -> Completion:
        """The answer to a conversation, through the GGUF's own chat template; thinking stays in the text."""
        return self.complete(
            self.apply_template(messages),
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            top_p=top_p,
            stop=stop,
        )

    def _letter(self) -> int:
        if self._letter_id is None:
            self._letter_id = self.tokenize("a", add_special=False)[-1]
        return self._letter_id

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        if self._process is None:
            raise ExportError("llama.cpp is not running", where=self.file, fix="use LlamaServer in a with statement")
        request = urllib.request.Request(
            self._address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"},
        )
        # No proxy of the environment may come between this process and its own child.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_REQUEST_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                detail = _message(error.read())
            raise ExportError(f"llama.cpp refused {path}: {detail}", where=self.file) from None
        except (OSError, ValueError) as error:
            tail = "\n".join(self.log().splitlines()[-_LOG_LINES:])
            raise ExportError(f"llama.cpp failed at {path}: {error}\n{tail}".rstrip(), where=self.file) from error


def _environment() -> dict[str, str]:
    """The child's environment.

    llama.cpp's threads meet hundreds of times a token, and on Linux they wait for each other in a loop that libgomp
    lets run for milliseconds. Where another program wants a core too, that made a tiny model a hundred times slower.
    """
    own = dict(os.environ)
    return own if "OMP_WAIT_POLICY" in own else {"GOMP_SPINCOUNT": "1000", **own}


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", errors="replace")
