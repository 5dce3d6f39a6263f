"""How sure a perplexity is: the bootstrap over documents (Efron and Tibshirani, 1993, chapters 6 and 13).

The tokens of one document are alike, so that an interval over tokens would be too narrow: documents are what is drawn,
with replacement, as many as there are. The interval holds the middle 95 % of the resamples' values (section 13.3);
its ends are two of these values, counted off as in section 12.5. It says how much the result depends on which documents
were held out, and nothing of how much it depends on the seed of a training. Of few documents it is too narrow.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from chrysalis_mlx.evaluation.results import Change, Interval, Score

# (D, 2): of each document the sum of −log p of its targets, in nats, and how many targets it has.
Sums = npt.NDArray[np.float64]

_OUTSIDE = 0.025  # of the resamples, at either end of the interval
_DRAWS = 1 << 20  # documents drawn at a time, in 24 MB


def score(sums: Sums, *, seed: int, resamples: int) -> Score:
    """How well documents are predicted, and how sure that is.

    Args:
        sums: (D, 2). A document without a target counts for nothing. A loss may be infinite, and so is then what is
            computed from it.
        seed: the same seed gives the same interval.
        resamples: how often D documents are drawn.

    Returns:
        perplexity and loss are nan where there is no target; the interval is None of fewer than two documents.
    """
    sums = sums[sums[:, 1] > 0]
    if not len(sums):
        return Score(math.nan, math.nan, 0, 0)
    loss, targets = sums.sum(axis=0)
    drawn = _resampled(sums, seed, resamples)
    interval = None if drawn is None else _interval(drawn[0] / drawn[1])
    return Score(_exp(loss / targets), float(loss / targets), round(targets), len(sums), interval)


def change(sums: Sums, other: Sums, *, seed: int, resamples: int) -> Change:
    """Perplexity of `sums` over that of `other`, both from the same targets of the same documents in the same order.

    Every resample draws the same documents of both: how hard a document is cancels out, and what is left is how much
    better one predicts it than the other.

    Args:
        sums, other: (D, 2), with equal targets.
        seed, resamples: as in `score`.

    Returns:
        the ratio is nan where it has no value: without a target, or where both losses are infinite. The interval is
        None then, and of fewer than two documents.

    Raises:
        ValueError: the targets are not the same.
    """
    if not np.array_equal(sums[:, 1], other[:, 1]):
        raise ValueError("only losses of the same targets can be compared")
    both = np.column_stack([sums[:, 0], other[:, 0], sums[:, 1]])
    both = both[both[:, 2] > 0]
    loss, other_loss, targets = both.sum(axis=0)
    if not len(both) or (math.isinf(loss) and math.isinf(other_loss)):
        return Change(math.nan)
    drawn = _resampled(both, seed, resamples)
    interval = None if drawn is None else _interval((drawn[0] - drawn[1]) / drawn[2])
    return Change(_exp((loss - other_loss) / targets), interval)


def _resampled(documents: npt.NDArray[np.float64], seed: int, resamples: int) -> npt.NDArray[np.float64] | None:
    """Sums over each resample of (D, C) documents, (C, resamples); None of fewer than two documents."""
    count, columns = documents.shape
    if count < 2:
        return None
    generator = np.random.default_rng(seed)
    values = np.ascontiguousarray(documents.T)  # (C, D)
    found = np.empty((columns, resamples))
    size = max(1, _DRAWS // count)
    for start in range(0, resamples, size):
        end = min(start + size, resamples)
        drawn = generator.integers(0, count, (end - start, count))
        for column in range(columns):
            found[column, start:end] = values[column][drawn].sum(axis=1)
    return found


def _interval(losses: npt.NDArray[np.float64]) -> Interval:
    """The middle 95 % of (R,) losses, or of differences of losses, as perplexities or as ratios of them."""
    ordered = np.sort(losses)
    left_out = max(1, math.floor((len(ordered) + 1) * _OUTSIDE))
    return Interval(_exp(ordered[left_out - 1]), _exp(ordered[len(ordered) - left_out]))


def _exp(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
