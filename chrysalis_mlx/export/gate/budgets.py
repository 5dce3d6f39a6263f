"""How far a sound file of each type may be from the trained model.

Measured on SmolLM2-135M-Instruct, whose weights were made continuous again by noise of half a 4-bit step, so that its
own quantization helps none of the types; 96 positions in texts of 96 tokens, mean KL in nats without and with an
importance matrix from another text:

    F32 1e-6   F16 7e-6   BF16 4e-4   Q8_0 0.006   Q6_K 0.018   Q5_K_M 0.053   Q5_1 0.071   Q5_K_S 0.075   Q5_0 0.089
    Q4_K_M 0.066, 0.042   Q4_K_S 0.174   IQ4_NL 0.186   IQ4_XS 0.195, 0.110   Q4_1 0.268   Q4_0 0.346
    Q3_K_L 0.155   Q3_K_M 0.246, 0.099   Q3_K_S 0.618   IQ3_M 1.05, 0.127   Q2_K 0.618, 0.290   IQ2_M -, 0.326

Without that noise the grid of its own Q4_1 lies badly for some: Q5_1 0.145, Q5_K_S 0.104, Q5_K_M 0.087 (README).

Its rows are no multiple of 256, so that small types are partly stored in larger ones. A random llama of two layers, 256
wide, has 0.254 in Q3_K_L, 0.271 in Q3_K_M, 0.323 in Q3_K_S, 0.616 in IQ3_M and 0.816 in Q2_K, and less than SmolLM2 in
all others; larger trained models lose less than either. A budget is about twice the worst of these.

The same model with faults: q and k rows not permuted 1.20 in F16; norms + 1 not a number; a random importance matrix
0.182 in Q4_K_M and 1.33 in Q2_K; a tenth of the rotary base 0.080 in F16, and 0.227 in texts of 512 tokens, where sound
files lose what they lose in short ones. So small a fault is not told from the coarseness of the smallest types.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from chrysalis_mlx.export.gate.divergence import Distance

_STANDARD_ERRORS = 2.0


@dataclass(frozen=True)
class Budget:
    """What a sound file stays within.

    Attributes:
        kl: most mean KL(trained ‖ file) in nats.
        top1: least share of equal most likely tokens.
        perplexity: most perplexity, over the trained model's.
        exact: the numbers hold as they are. Else they hold for all texts, of which the positions are a sample, and two
            standard errors are allowed.
    """

    kl: float
    top1: float
    perplexity: float
    exact: bool = False


_EXACT = Budget(1e-4, 0.995, 1.005, exact=True)

BUDGETS = {
    "F32": _EXACT,
    "F16": _EXACT,
    "BF16": Budget(2e-3, 0.95, 1.02),
    "Q8_0": Budget(0.015, 0.88, 1.05),
    "MXFP4": Budget(0.015, 0.88, 1.05),  # of a dense model it is Q8_0
    "Q6_K": Budget(0.04, 0.8, 1.12),
    "Q5_1": Budget(0.3, 0.65, 1.3),
    "Q5_K_M": Budget(0.16, 0.7, 1.25),
    "Q5_K_S": Budget(0.22, 0.7, 1.25),
    "Q5_0": Budget(0.18, 0.7, 1.25),
    "Q4_1": Budget(0.55, 0.5, 1.6),
    "Q4_K_M": Budget(0.17, 0.7, 1.3),
    "Q4_K_S": Budget(0.35, 0.6, 1.5),
    "Q4_0": Budget(0.7, 0.5, 1.9),
    "IQ4_NL": Budget(0.4, 0.55, 1.6),
    "IQ4_XS": Budget(0.4, 0.55, 1.6),
    "Q3_K_L": Budget(0.5, 0.5, 1.6),
    "Q3_K_M": Budget(0.55, 0.5, 1.8),
    "Q3_K_S": Budget(1.2, 0.4, 3.0),
    "IQ3_M": Budget(2.0, 0.3, 8.0),
    "Q2_K": Budget(1.6, 0.35, 5.0),
    "IQ2_M": Budget(0.8, 0.5, 2.2),
}
"""By file type, made without an importance matrix (IQ2_M: with one, there is no other)."""

WITH_IMPORTANCE = {
    "Q4_K_M": Budget(0.12, 0.7, 1.2),
    "IQ4_XS": Budget(0.25, 0.6, 1.4),
    "Q3_K_M": Budget(0.25, 0.6, 1.4),
    "IQ3_M": Budget(0.35, 0.6, 1.5),
    "Q2_K": Budget(0.8, 0.5, 2.0),
}
"""By file type, made with an importance matrix, where that was measured; for others the same as without."""


def budget_of(type_name: str, *, importance: bool = False) -> Budget:
    """The budget of a file type.

    Args:
        importance: the file was made with an importance matrix.
    """
    return WITH_IMPORTANCE.get(type_name, BUDGETS[type_name]) if importance else BUDGETS[type_name]


def over_budget(budget: Budget, distance: Distance) -> list[str]:
    """What a file is too far in, as sentences."""
    spread = math.sqrt(budget.top1 * (1 - budget.top1) / distance.positions)
    kl_slack, top1_slack, perplexity_slack = (
        0.0 if budget.exact else _STANDARD_ERRORS * error
        for error in (distance.kl_error, spread, distance.perplexity_error)
    )
    failures = []
    if not distance.kl - kl_slack <= budget.kl:  # NaN is within no budget
        failures.append(f"KL {distance.kl:.2e} is above the budget of {budget.kl:g}")
    # One position may be a tie that rounding decides, which is more of few positions than a share allows. KL judges it.
    if distance.top1 < min(budget.top1 - top1_slack, 1 - 1 / distance.positions):
        failures.append(f"top-1 agreement {distance.top1:.2%} is below the budget of {budget.top1:.1%}")
    ratio = distance.perplexity / distance.reference_perplexity
    if not math.log(ratio) - perplexity_slack <= math.log(budget.perplexity):
        failures.append(
            f"perplexity {distance.perplexity:.4g} is {ratio:.4g} times the trained model's, "
            f"above the budget of {budget.perplexity:g}"
        )
    return failures
