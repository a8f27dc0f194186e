"""Batches with made-up records and teacher's logits, and small learners, for the tests of a training step."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from helpers import MemoryImages
from torch import Tensor, nn

from logitstore.cards import Preprocessing
from logitstore.learning.criterion import Criterion, hard_label_loss, soft_target_loss
from logitstore.learning.learner import Learner
from logitstore.loader import Batch, ViewLoader
from logitstore.models import build_model
from logitstore.store import Records
from logitstore.views import view_spec
from students.recipes import Recipe, digits

PLAIN = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
CPU = torch.device("cpu")
BATCH, CLASSES = 16, 4
SOFT = Criterion(distillation=soft_target_loss)
HARD = Criterion(labels=partial(hard_label_loss, smoothing=0.1))


def records(seed: int) -> Records:
    """Two classes of four are kept."""
    rng = np.random.default_rng(seed)
    mass = rng.dirichlet(np.ones(3), BATCH).astype(np.float32)
    return Records(
        sample=np.arange(BATCH),
        seed=np.arange(BATCH, dtype=np.uint32),
        index=np.stack([rng.permutation(CLASSES)[:2] for _ in range(BATCH)]).astype(np.uint16),
        prob=mass[:, :2],
        tail=mass[:, 2],
        kept=np.full(BATCH, 2, np.int32),
        weight=np.ones(BATCH, np.float32),
        logz=None,
    )


def make_batches(*, mixed: bool = False, logits: bool = False) -> list[Batch]:
    """Four batches with labels, with Mixup on request, and with logits in place of records where these are wanted."""
    images = MemoryImages(4 * BATCH, labels=[i % CLASSES for i in range(4 * BATCH)])
    spec = replace(view_spec("crop_flip", size=32), mixup=0.8 if mixed else 0.0)
    made = []
    for number, batch in enumerate(ViewLoader(images, spec, run_seed=1, batch_size=BATCH, workers=0).batches(0)):
        logits_BC = np.random.default_rng(number).normal(0, 2, (BATCH, CLASSES)).astype(np.float32)
        made.append(replace(batch, records=records(number), logits_BC=logits_BC if logits else None))
    return made


def learner(model: str = "test_vit", recipe: Recipe | None = None, **options: Any) -> Learner:
    """A learner of four steps an epoch; ``drop_path`` and ``criterion`` among its options."""
    recipe = recipe or replace(digits(), batch_size=BATCH, warmup_epochs=0.0)
    values: dict[str, Any] = {
        "preprocessing": PLAIN, "steps_per_epoch": 4, "seed": 3, "device": CPU, "dtype": torch.float32, **options
    }
    criterion, drop_path = values.pop("criterion", SOFT), values.pop("drop_path", 0.2)
    student = build_model(model, num_classes=CLASSES, size=32, drop_path=drop_path, seed=5)
    return Learner(student, criterion, recipe, **values)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's state."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def gradients(one: Learner) -> dict[str, Tensor]:
    """Of the last step, by parameter."""
    return {name: parameter.grad for name, parameter in one.model.named_parameters() if parameter.grad is not None}
