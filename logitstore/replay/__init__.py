"""Views and targets for training loops of other libraries: what ``train`` learns from, as plain tensors.

========== ====================================================================
module     what lives there
========== ====================================================================
batches    ``TrainBatches``: an iterable data set of torch, one dict a batch
loss       ``TrainLoss``: the losses of a run, of logits and such a dict
student    ``initial_student``: the model that a run starts with
validation ``ValidationViews``: a data set of torch, one dict an image
========== ====================================================================

They take a ``TrainConfig`` and read of it what concerns them. No framework is known here: what each wants of an
iterable is little, and docs/examples shows it.
"""

from logitstore.replay.batches import TrainBatches
from logitstore.replay.loss import TrainLoss
from logitstore.replay.student import initial_student
from logitstore.replay.validation import ValidationViews

__all__ = ["TrainBatches", "TrainLoss", "ValidationViews", "initial_student"]
