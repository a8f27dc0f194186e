"""What the tests of ``audit`` share: a teacher that knows digits, digits with planted wrong labels, made-up records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from logitstore.dump import DumpConfig, dump
from logitstore.images import ImageSet, open_images
from logitstore.store import Manifest, ShardBlock, Store, claim_shard, commit_shard, create_store, encode_records
from logitstore.views import ViewSpec

COUNT, PLANTED = 240, 24
CLASSES = [f"digit {c}" for c in range(10)]
GENTLE = "base: crop_flip\nscale: [0.8, 1.0]\nratio: [0.9, 1.1]\nhflip: 0.0\n"


class Neighbours(nn.Module):
    """Digits by their distance to all digits that have a right label, seen as 8x8 pixel means."""

    def __init__(self) -> None:
        super().__init__()
        digits = open_images("digits")
        assert digits.labels is not None
        known = np.stack([digits.pixels(i)[..., 0] for i in range(len(digits))]).reshape(len(digits), -1)
        self.register_buffer("known_ND", torch.from_numpy(known.astype(np.float32) / 255))
        self.register_buffer("label_N", torch.from_numpy(digits.labels))
        self.classifier = nn.Linear(1, 10)  # its weight is the one that a teacher must have

    def forward(self, images_BCHW: Tensor) -> Tensor:
        mean, std = 0.449, 0.226
        grey_BD = nn.functional.adaptive_avg_pool2d(images_BCHW.mean(1, keepdim=True), 8).flatten(1) * std + mean
        near_BN = -8 * torch.cdist(grey_BD, self.known_ND)
        return torch.stack([near_BN[:, self.label_N == c].logsumexp(1) for c in range(10)], dim=1)


def neighbours() -> nn.Module:
    """What ``--teacher audit_cases:neighbours`` calls."""
    with torch.random.fork_rng(devices=[]):
        return Neighbours()


def planted_digits(path: Path) -> tuple[str, list[int]]:
    """Digits as an .npz file in which the labels of some samples were exchanged; the file and these samples."""
    digits = open_images("digits").subset(COUNT)
    assert digits.labels is not None
    labels = digits.labels.copy()
    rng = np.random.default_rng(5)
    wrong = np.sort(rng.choice(COUNT, PLANTED, replace=False))
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, PLANTED)) % 10
    images = np.stack([digits.pixels(i) for i in range(COUNT)])
    np.savez(path, images=images, labels=labels, class_names=CLASSES)
    return str(path), wrong.tolist()


def planted_store(folder: Path, data: str, **options: Any) -> Path:
    """What the teacher says of these digits: two epochs of gentle crops."""
    (folder / "gentle.yaml").write_text(GENTLE)
    values: dict[str, Any] = {
        "teacher": "audit_cases:neighbours", "data": data, "store": str(folder / "store"), "epochs": 4, "topk": 10,
        "floor": 1e-3, "size": 32, "batch_size": 64, "shard_size": 64, "workers": 1,
        "view": str(folder / "gentle.yaml"),
    }  # fmt: skip
    assert dump(DumpConfig(**{**values, **options})).complete
    return folder / "store"


def labelled_images(
    path: Path, labels: NDArray[np.int64] | None, *, count: int = 0, names: list[str] | None = None
) -> str:
    """Small random images as an .npz file, with or without labels and class names."""
    size = count if labels is None else len(labels)
    arrays: dict[str, Any] = {"images": np.random.default_rng(1).integers(0, 256, (size, 8, 8, 3), np.uint8)}
    if labels is not None:
        arrays["labels"] = labels
    if names is not None:
        arrays["class_names"] = names
    np.savez(path, **arrays)
    return str(path)


def made_up_store(
    path: Path,
    images: ImageSet,
    spec: ViewSpec,
    *,
    classes: int = 7,
    topk: int = 6,
    epochs: int = 2,
    shards: list[int] | None = None,
    teacher_names: list[str] | None = None,
) -> Store:
    """A store of random records, some short, some empty; ``shards`` says how many are committed of each epoch."""
    manifest = Manifest(
        num_samples=len(images), num_epochs=epochs, num_classes=classes, topk=topk, floor=0.0, values="f16", run_seed=3,
        shard_size=64, chunk_size=64, teacher={"name": "made_up", "class_names": teacher_names},
        dataset=images.describe(), view=spec.to_dict(),
    )  # fmt: skip
    store = create_store(path, manifest)
    rng = np.random.default_rng(2)
    for epoch in range(epochs):
        for shard in range(store.num_shards if shards is None else shards[epoch]):
            first, stop = store.shard_range(shard)
            count = stop - first
            prob_BC = np.sort(rng.dirichlet(np.full(classes, 0.4), count))[:, ::-1] + 1e-6
            kept_B = rng.integers(0, topk + 1, count)
            tail_B = np.array([row[kept:].sum() for row, kept in zip(prob_BC, kept_B, strict=True)])
            index, logp, tail = encode_records(
                index_BK=np.argsort(rng.random((count, classes)), axis=1)[:, :topk],
                logp_BK=np.log(prob_BC[:, :topk]).astype(np.float32),
                tail_B=np.log(np.maximum(tail_B, 1e-30)).astype(np.float32),
                kept_B=kept_B,
                topk=topk,
                values="f16",
                num_classes=classes,
            )
            claim = claim_shard(store, epoch, shard)
            assert claim is not None
            with claim:
                seed = rng.integers(0, 1 << 32, count, dtype=np.uint32)
                witness = np.zeros(-(-count // 64), np.uint32)
                commit_shard(
                    store, claim, ShardBlock(seed=seed, index=index, logp=logp, tail=tail, witness=witness)
                )
    return store
