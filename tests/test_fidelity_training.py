"""Training from a dense store is training against the live teacher, on the same views from the same initial weights.

The teacher is a small network trained here on digits. Views are TinyViT's in full, with CutMix. The live side shares
the loader and the learner with the store's side, but neither records nor the loss: it runs the teacher on every batch
and takes the dense cross-entropy against its softmax.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from logitstore.device import Compute, seeded
from logitstore.dump import DumpConfig, dump
from logitstore.images import open_images
from logitstore.learning.criterion import Criterion, Targets
from logitstore.learning.learner import Learner
from logitstore.loader import ViewLoader, eval_batches
from logitstore.models import build_model, default_preprocessing
from logitstore.scoring import score
from logitstore.teacher import load_teacher
from logitstore.train import TrainConfig, train
from logitstore.views import ViewSpec
from students.recipes import select_recipe

CPU = torch.device("cpu")
# BatchNorm lets differences of rounding grow faster: test_resnet reaches 5e-4 at step 50, this one 1e-5.
STUDENT, BATCH, EPOCHS, STEPS, SEED = "test_vit", 32, 5, 200, 11
VIEW = "base: tinyvit\ncutmix: 1.0\nhflip: 0.0\n"


@cache
def digits_teacher() -> nn.Module:
    """A small convolutional network trained on digits, for ``--teacher test_fidelity_training:digits_teacher``."""
    images = open_images("digits")
    assert images.labels is not None
    labels = torch.from_numpy(images.labels)
    (batch,) = eval_batches(images, size=32, crop_pct=0.875, batch_size=len(images), workers=0)
    pictures = (torch.from_numpy(batch.views_BCHW) / 255 - 0.45) / 0.225
    with seeded(CPU, 1):
        model = nn.Sequential(
            *_stage(3, 16), *_stage(16, 32), *_stage(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(6):
            for rows in torch.randperm(len(images)).split(48):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(pictures[rows]), labels[rows]).backward()
                optimizer.step()
    model.mean, model.std = (0.45,) * 3, (0.225,) * 3  # type: ignore[assignment]
    return model.eval()


def _stage(channels: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()


@pytest.fixture(scope="module")
def dense_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    (folder / "view.yaml").write_text(VIEW)
    result = dump(
        DumpConfig(
            teacher="test_fidelity_training:digits_teacher",
            topk=10,
            floor=0.0,
            values="f16",
            epochs=EPOCHS,
            view=str(folder / "view.yaml"),
            seed=SEED,
            store=str(folder / "store"),
            workers=1,
        )
    )
    assert result.complete
    return folder / "store"


def test_the_teacher_is_above_90_percent() -> None:
    teacher = load_teacher("test_fidelity_training:digits_teacher", size=32, device="cpu")
    accuracy = score(
        teacher.model,
        open_images("digits", split="val"),
        size=32,
        preprocessing=teacher.preprocessing,
        compute=Compute(device=CPU),
    )
    assert accuracy.top1 / accuracy.images > 0.9


def losses_from_the_store(store: Path, out: Path) -> list[float]:
    """Losses that ``train`` logs."""
    train(
        TrainConfig(
            student=STUDENT,
            store=str(store),
            epochs=EPOCHS,
            batch_size=BATCH,
            drop_path=0.1,
            seed=SEED,
            log_steps=1,
            out=str(out),
            tensorboard=False,
            workers=1,
        )
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["group"] == "train"][:STEPS]


def losses_of_the_live_teacher(spec: ViewSpec) -> list[float]:
    """The same steps with the teacher in memory and a dense target."""
    images = open_images("digits")
    teacher = load_teacher("test_fidelity_training:digits_teacher", size=32, device="cpu")
    recipe = select_recipe("digits", epochs=EPOCHS, batch_size=BATCH, drop_path=(("", 0.1),))
    model = build_model(STUDENT, num_classes=10, size=32, drop_path=0.1, seed=SEED)
    target_BC = torch.empty(0)

    def dense_loss(logits_BC: Tensor, _targets: Targets) -> Tensor:
        return -(target_BC * torch.log_softmax(logits_BC, 1)).sum(1).mean()

    loader = ViewLoader(images, spec, run_seed=SEED, batch_size=BATCH, workers=1, drop_last=True)
    learner = Learner(
        model,
        Criterion(distillation=dense_loss),
        recipe,
        preprocessing=default_preprocessing(model),
        steps_per_epoch=loader.num_batches(),
        seed=SEED,
        device=CPU,
    )
    losses: list[float] = []
    for epoch in range(EPOCHS):
        for batch in loader.batches(epoch):
            assert batch.records is None
            target_BC = torch.softmax(teacher.logits(batch.views_BCHW), 1)
            losses.append(float(learner.train_step(batch).total))
    return losses[:STEPS]


def test_training_from_a_dense_store_equals_training_against_the_live_teacher(
    dense_store: Path, tmp_path: Path
) -> None:
    from logitstore.store import open_store

    spec = ViewSpec.from_dict(open_store(dense_store).manifest.view)
    assert spec.rand_augment_layers == 2 and spec.cutmix == 1.0 and spec.erasing_prob == 0.25
    stored = np.array(losses_from_the_store(dense_store, tmp_path / "run"))
    live = np.array(losses_of_the_live_teacher(spec))
    assert len(stored) == len(live) == STEPS
    deviation = np.abs(stored - live) / live
    means = stored[50:].mean(), live[50:].mean()
    print(f"largest deviation of the first 50: {deviation[:50].max():.2e}; means of the rest: {means}")
    assert deviation[:50].max() < 1e-3
    assert abs(means[0] - means[1]) / means[1] < 0.01
    assert stored[-40:].mean() < 0.95 * stored[:40].mean(), "the student did not learn, so equality would mean little"
