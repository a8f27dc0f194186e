"""The consumer: train a student from a store with no teacher loaded, or from hard labels with the same recipe.

========== ===========================================================================
module     what lives there
========== ===========================================================================
config     what to train, and how: one field per option of the command
feed       what a run trains on: images, views and records, checked before the first step
notes      what of a recipe does not fit the run
run        a run under way: steps, epochs, checkpoints, validation, stopping
loop       ``train``: from configuration to trained student
========== ===========================================================================
"""

from logitstore.train.config import TrainConfig, TrainResult
from logitstore.train.loop import train

__all__ = ["TrainConfig", "TrainResult", "train"]
