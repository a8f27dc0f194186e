"""The student of a run before its first step."""

from __future__ import annotations

from torch import nn

from logitstore.cards import Preprocessing
from logitstore.errors import InputError
from logitstore.initial import take_over
from logitstore.models import own_preprocessing
from logitstore.replay.batches import TrainBatches
from logitstore.train import TrainConfig
from logitstore.train.architecture import make_student


def initial_student(config: TrainConfig, batches: TrainBatches) -> tuple[nn.Module, Preprocessing]:
    """The student that ``train`` would start with, and what it is fed.

    A model of timm with random weights that depend on the configuration's seed alone, or with those of ``init_from``;
    torch's own generator is left as it was. Any other model with as many classes does as well.

    Args:
        config: which student, from which weights, with which rate of stochastic depth.
        batches: what it will see: their size and classes are the student's.

    Returns:
        The model, on the CPU, and mean, standard deviation and crop of its images.

    Raises:
        InputError: ``freeze_copied`` is asked for, which is the business of a training loop.
        ModelError: no such model, or weights that are not its family's.
    """
    if config.freeze_copied:
        raise InputError(
            "freeze_copied holds modules in eval mode, and a loop of your own decides on modes: leave it out, and see "
            "students.transfer.freeze."
        )
    student = make_student(config, num_classes=batches.num_classes, size=batches.size)
    fed = own_preprocessing(student, batches.size)
    if config.init_from is None:
        return student, fed
    taken = take_over(config.init_from, student, cut=config.cut, class_names=batches.class_names)
    return student, taken.preprocessing(fed)
