"""Cross-entropy and divergence against the sparse soft targets of records, without a dense target.

Shapes: B batch, K kept classes, C classes.
"""

from __future__ import annotations

from torch import Tensor

from logitstore.losses.one_pass import one_pass_loss, takes
from logitstore.losses.plain import precision, weighted_mean
from logitstore.losses.sparse import SparseTarget, plain_rows


def soft_target_cross_entropy(
    logits_BC: Tensor,
    index_BK: Tensor,
    prob_BK: Tensor,
    tail_B: Tensor,
    *,
    weight_B: Tensor | None = None,
    overwrite: bool = False,
) -> Tensor:
    """Mean cross-entropy of the student's logits against sparse soft targets at temperature 1.

    The tail's mass is spread evenly over the C - k classes that a record did not keep; with k = C there is none. No
    [B, C] target is made. float32 and bfloat16 logits on a CPU, or on a GPU where Triton works, have loss and gradient
    from one pass: the gradient is made with the loss, so it can be asked for once only, and it is all that is kept.

    Args:
        logits_BC: the student's logits, any floating type; the only argument with a gradient.
        index_BK: kept classes, any integer type; entries >= C are padding (the store writes the type's maximum).
        prob_BK: their probabilities; what stands at padding is ignored.
        tail_B: probability mass outside the kept classes.
        weight_B: weights of the rows; None means 1 each.
        overwrite: let the gradient take the place of the logits in memory, which saves a [B, C]. Afterwards they hold
            nothing of use. Ask for it only where nothing else will read them, and where the layer that made them does
            not need its output for its own gradient (a linear layer does not; torch raises an error otherwise).

    Returns:
        Scalar of type float32 (float64 for float64 logits); 0 when all weights are 0.

    Source:
        TinyViT (Wu et al., 2022), eq. 2.
    """
    if takes(logits_BC):
        return one_pass_loss(logits_BC, index_BK, prob_BK, tail_B, weight_B=weight_B, overwrite=overwrite)
    target = SparseTarget.of(logits_BC, index_BK, prob_BK, tail_B)
    return weighted_mean(plain_rows(logits_BC, target), weight_B)


def tempered_kl(
    logits_BC: Tensor,
    index_BK: Tensor,
    prob_BK: Tensor,
    tail_B: Tensor,
    *,
    temperature: float,
    weight_B: Tensor | None = None,
    overwrite: bool = False,
) -> Tensor:
    """Mean Kullback-Leibler divergence of the student from sparse soft targets at a temperature T, times T^2.

    The target is proportional to q^(1/T), where q is the target at temperature 1 with its tail spread evenly over the
    classes that a record did not keep: these are tempered as the kept ones are. No [B, C] target is made. At T = 1 the
    gradient is that of ``soft_target_cross_entropy``, and the value is less by the target's entropy: 0 for a student
    that equals its target.

    Args:
        logits_BC: the student's logits, any floating type; the only argument with a gradient.
        index_BK: kept classes, any integer type; entries >= C are padding.
        prob_BK: their probabilities at temperature 1; what stands at padding is ignored.
        tail_B: probability mass outside the kept classes, at temperature 1.
        temperature: T, above 0.
        weight_B: weights of the rows; None means 1 each.
        overwrite: as in ``soft_target_cross_entropy``, as is the way the gradient is made.

    Returns:
        Scalar of type float32 (float64 for float64 logits), at least 0; 0 when all weights are 0.

    Source:
        Hinton et al., Distilling the knowledge in a neural network (2015), for the temperature and its square, which
        keeps gradients of one size whatever T is. TinyViT (Wu et al., 2022), eq. 2, for the spread tail.
    """
    target = SparseTarget.of(logits_BC, index_BK, prob_BK, tail_B).tempered(temperature)
    if takes(logits_BC):
        return one_pass_loss(
            logits_BC,
            index_BK,
            target.prob_BK,
            target.tail_B,
            entropy_B=target.entropy_B,
            temperature=temperature,
            weight_B=weight_B,
            overwrite=overwrite,
        )
    scaled_BC = logits_BC.to(precision(logits_BC)) / temperature
    divergence_B = plain_rows(scaled_BC, target, entropy_B=target.entropy_B)
    return weighted_mean(divergence_B * temperature**2, weight_B)
