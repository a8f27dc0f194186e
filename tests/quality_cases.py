"""What the tests of the proof on students share: a teacher that is neither flat nor certain, and its store."""

from __future__ import annotations

from pathlib import Path

from logitstore.cards import Card, save_model
from logitstore.dump import DumpConfig, dump
from logitstore.images import open_images
from logitstore.models import build_model, default_preprocessing
from logitstore.store import Store, open_store

TEACHER, SUBSET = "test_vit", 200


def make_teacher(path: Path, seed: int = 3) -> str:
    """Random weights with a large head; ``seed`` makes another one."""
    model = build_model(TEACHER, num_classes=10, size=32, seed=seed)
    state = {name: tensor * (40 if name == "head.weight" else 1) for name, tensor in model.state_dict().items()}
    card = Card(
        model=TEACHER,
        model_args={"img_size": 32},
        num_classes=10,
        class_names=open_images("digits").class_names,
        size=32,
        preprocessing=default_preprocessing(model),
    )
    save_model(path, state, card)
    return str(path)


def make_store(path: Path, teacher: str, **options: object) -> Store:
    """A dense store of a part of digits, two epochs in four shards each, unless ``options`` say otherwise."""
    values: dict[str, object] = {
        "teacher": TEACHER,
        "checkpoint": teacher,
        "topk": 10,
        "floor": 0.0,
        "values": "f16",
        "store": str(path),
        "epochs": 2,
        "subset": SUBSET,
        "shard_size": 64,
        "batch_size": 64,
        "view": "crop_flip",
        "workers": 1,
    }
    assert dump(DumpConfig(**{**values, **options})).complete  # type: ignore[arg-type]
    return open_store(path)
