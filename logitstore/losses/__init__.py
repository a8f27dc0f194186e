"""Losses on what a store keeps, on hard labels, on relations among tokens; and how two of them are joined.

============ ==========================================================
module       what lives there
============ ==========================================================
soft_targets cross-entropy and divergence against sparse records
one_pass     the same with the gradient made in the same pass
sparse       sparse targets, and the plain form
plain        logits against logits, and hard labels; means over rows
joint        one loss out of a distillation loss and one on hard labels
relations    relations among tokens inside the models
============ ==========================================================

Losses are means over the rows' weights; rows of weight 0 (skipped samples) count for nothing. float64 logits are
computed in float64, all others in float32, also under autocast. Which losses a run takes is the trainer's business, and
what the targets mean the store's.
"""

from logitstore.losses.joint import alpha_coefficients, harmonic_coefficients, joint_loss, ratio_coefficients
from logitstore.losses.plain import hard_label_cross_entropy, logit_mse, weighted_mean
from logitstore.losses.relations import attention_relation_loss, hidden_relation_loss
from logitstore.losses.soft_targets import soft_target_cross_entropy, tempered_kl

__all__ = [
    "alpha_coefficients",
    "attention_relation_loss",
    "hard_label_cross_entropy",
    "harmonic_coefficients",
    "hidden_relation_loss",
    "joint_loss",
    "logit_mse",
    "ratio_coefficients",
    "soft_target_cross_entropy",
    "tempered_kl",
    "weighted_mean",
]
