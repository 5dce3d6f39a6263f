"""How far a file's next-token distributions are from the trained model's.

KL(trained ‖ file) = Σ p (log p − log q) in nats, over the tokens that llama.cpp reports plus one bucket for all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.export.gate.reference import Position
from chrysalis_mlx.llamacpp.server import LlamaServer
from chrysalis_mlx.progress import Progress, silent

TOP = 1024  # tokens of each distribution that llama.cpp is asked for; the whole vocabulary at WHOLE positions
WHOLE = 4
_RESOLUTION = 1e-3


@dataclass(frozen=True)
class Distance:
    """A file against the trained model, over the same positions.

    Attributes:
        positions: how many.
        kl: mean KL(trained ‖ file) in nats.
        kl_error: its standard error as an estimate for all such texts.
        kl_max: at the worst position.
        kl_whole_vocabulary: mean over the few positions where no bucket was needed.
        top1: share of positions with the same most likely token.
        perplexity: of the file, exp(mean −log p) of the tokens that follow in the held-out texts.
        reference_perplexity: of the trained model, over the same tokens.
        perplexity_error: standard error of log(perplexity / reference_perplexity), likewise.
    """

    positions: int
    kl: float
    kl_error: float
    kl_max: float
    kl_whole_vocabulary: float
    top1: float
    perplexity: float
    reference_perplexity: float
    perplexity_error: float


def measure(
    server: LlamaServer, positions: Sequence[Position], *, description: str = "verifying", progress: Progress = silent
) -> Distance:
    """Ask llama.cpp for its distribution at every position."""
    kls, whole, same = [], [], 0
    log_p, log_q = np.zeros(len(positions)), np.zeros(len(positions))
    with progress(description, len(positions), unit="position") as bar:
        for number, position in enumerate(positions):
            vocabulary = len(position.log_p)
            complete = number * WHOLE // len(positions) != (number + 1) * WHOLE // len(positions)
            ids, known, log_q[number] = server.target_logprobs(
                position.context, vocabulary if complete else TOP, position.target, vocabulary
            )
            log_p[number] = position.log_p[position.target]
            kls.append(divergence(position.log_p, ids, known))
            whole += kls[-1:] if complete else []
            same += int(ids[np.argmax(known)] == np.argmax(position.log_p))
            bar.update(kl=float(np.mean(kls)))
    return Distance(
        positions=len(positions),
        kl=float(np.mean(kls)),
        kl_error=_standard_error(np.array(kls)),
        kl_max=float(np.max(kls)),
        kl_whole_vocabulary=float(np.mean(whole)),
        top1=same / len(positions),
        perplexity=float(np.exp(-log_q.mean())),
        reference_perplexity=float(np.exp(-log_p.mean())),
        perplexity_error=_standard_error(log_p - log_q),
    )


def _standard_error(values: npt.NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("inf")


def divergence(log_p: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], log_q: npt.NDArray[np.float32]) -> float:
    """KL(p ‖ q) in nats over the tokens `ids` and one bucket for all others.

    By the chain rule it is P · KL(p ‖ q given a token of `ids`) + KL(bucket). The first part does not feel how q is
    normalized, which matters: llama.cpp sums its softmax in float32, and over 50,000 tokens that is off by about 1e-4.
    For the bucket, masses below `_RESOLUTION` are therefore taken as equal.

    Args:
        log_p: (V,) of every token.
        ids: (n,) the tokens whose log q is known; all V of them for the whole vocabulary.
        log_q: (n,).
    """
    known_p, known_q = log_p[ids].astype(np.float64), log_q.astype(np.float64)
    mass_p, mass_q = float(np.exp(known_p).sum()), float(np.exp(known_q).sum())
    inside = (np.exp(known_p) * ((known_p - np.log(mass_p)) - (known_q - np.log(mass_q)))).sum()
    if len(ids) == len(log_p):
        return float(inside / mass_p)
    rest_p, rest_q = max(1.0 - mass_p, _RESOLUTION), max(1.0 - mass_q, _RESOLUTION)
    bucket = rest_p * np.log(rest_p / rest_q) + (1 - rest_p) * np.log((1 - rest_p) / (1 - rest_q))
    return float(inside + bucket)
