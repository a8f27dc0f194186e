"""Make a teacher for a labelled data set: fine-tune pretrained weights, train a classifier on them, or start anew.

The result is a file of weights with its card, where ``dump`` looks for it. Optimiser, schedule, average of the weights
and augmentation are those of every other run; what is saved and measured is always the average.

========== ===========================================================================
module     what lives there
========== ===========================================================================
config     what to train, and how: one field per option of the command
loop       ``finetune``: from configuration to weights and card
========== ===========================================================================

Steps, checkpoints and the run's folder are those of every run, see ``learning``.
"""

from logitstore.finetune.config import FinetuneConfig, FinetuneResult
from logitstore.finetune.loop import finetune

__all__ = ["FinetuneConfig", "FinetuneResult", "finetune"]
