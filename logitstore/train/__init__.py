"""The consumer: train a student from a store with no teacher loaded, or from hard labels with the same recipe.

========== ===========================================================================
module     what lives there
========== ===========================================================================
config     what to train, and how: one field per option of the command
feed       opens what a run trains on: images, views and records, checked before the first step
notes      what of a recipe does not fit the run
loop       ``train``: from configuration to trained student
result     what a run gives back
========== ===========================================================================

Steps, checkpoints and the run's folder are those of every run, see ``learning``.
"""

from logitstore.train.config import TrainConfig
from logitstore.train.loop import train
from logitstore.train.result import TrainResult

__all__ = ["TrainConfig", "TrainResult", "train"]
