"""The contact sheet: what it draws, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from logitstore.errors import InputError, MismatchError
from logitstore.images import ImageSet
from logitstore.loader import ViewLoader
from logitstore.report import contact_sheet
from logitstore.report.contact_sheet import Panel, draw_sheet
from logitstore.store import Manifest, ShardBlock, Store, claim_shard, commit_shard, create_store, encode_records
from logitstore.views import view_spec
from tests.helpers import MemoryImages

SAMPLES, CLASSES, TOPK, SIDE = 7, 6, 4, 24


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return MemoryImages(SAMPLES, labels=[i % CLASSES for i in range(SAMPLES)], side=SIDE)


@pytest.fixture(scope="module")
def store(images: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One epoch of mixed views with records made up, one of them of a single class."""
    spec = replace(view_spec("tinyvit", size=SIDE), mixup=0.8, cutmix=1.0)
    manifest = Manifest(
        num_samples=SAMPLES, num_epochs=2, num_classes=CLASSES, topk=TOPK, floor=0.0, values="q8", run_seed=3,
        shard_size=64, chunk_size=64, teacher={"name": "made_up"}, dataset=images.describe(), view=spec.to_dict(),
    )  # fmt: skip
    store = create_store(tmp_path_factory.mktemp("report") / "store", manifest)
    batch = next(iter(ViewLoader(images, spec, run_seed=3, batch_size=64, workers=0).batches(0)))
    logp = np.log(np.tile(np.float32([0.5, 0.2, 0.1, 0.1]), (SAMPLES, 1)))
    index, logp, tail = encode_records(
        index_BK=np.tile(np.arange(TOPK), (SAMPLES, 1)),
        logp_BK=logp,
        tail_B=np.full(SAMPLES, np.log(0.1), np.float32),
        kept_B=np.array([1] + [TOPK] * (SAMPLES - 1)),
        topk=TOPK,
        values="q8",
        num_classes=CLASSES,
    )
    claim = claim_shard(store, 0, 0)
    assert claim is not None
    with claim:
        commit_shard(
            store, claim, ShardBlock(seed=batch.seed_B, index=index, logp=logp, tail=tail, witness=batch.witness_J)
        )
    return store


@pytest.mark.parametrize(
    "positions", [None, [0], [6, 1, 1], range(SAMPLES)], ids=["default", "one", "any order", "all"]
)
def test_draws_a_picture(store: Store, images: ImageSet, tmp_path: Path, positions: Any) -> None:
    path = contact_sheet(store, images, tmp_path / "views.png", positions=positions)
    with Image.open(path) as picture:
        assert np.asarray(picture.convert("L")).std() > 10


def test_names_that_the_font_lacks_are_drawn_without_a_word(tmp_path: Path) -> None:
    panel = Panel(
        title="日本.png", view_3HW=np.zeros((3, 8, 8), np.uint8), index_K=np.arange(2), prob_K=np.full(2, 0.5), label=0
    )
    assert draw_sheet([panel], tmp_path / "sheet.png", title="語", names=["犬", "猫"]).exists()  # warnings are errors


def test_shows_the_views_that_the_loader_makes(
    store: Store, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setitem(contact_sheet.__globals__, "_draw", lambda top, bottom, view, names: drawn.append(view))
    contact_sheet(store, images, tmp_path / "views.png", positions=range(SAMPLES))
    spec = replace(view_spec("tinyvit", size=SIDE), mixup=0.8, cutmix=1.0)
    whole = next(iter(ViewLoader(images, spec, store=store, batch_size=64, workers=0).batches(0)))
    assert np.array_equal(np.stack([view.view_3HW for view in drawn]), whole.views_BCHW)
    assert [len(view.index_K) for view in drawn] == [1] + [TOPK] * (SAMPLES - 1)
    assert [view.label for view in drawn] == whole.label_B.tolist()


@pytest.mark.parametrize(
    ("epoch", "positions"), [(2, [0]), (0, [SAMPLES]), (0, [-1]), (0, [])], ids=["epoch", "beyond", "negative", "none"]
)
def test_refuses_what_is_not_in_the_store(
    store: Store, images: ImageSet, tmp_path: Path, epoch: int, positions: list[int]
) -> None:
    with pytest.raises(InputError, match=r"positions 0 to 6"):
        contact_sheet(store, images, tmp_path / "views.png", epoch=epoch, positions=positions)
    assert not list(tmp_path.iterdir())


def test_refuses_another_data_set(store: Store, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="number of images"):
        contact_sheet(store, MemoryImages(SAMPLES + 1, side=SIDE), tmp_path / "views.png")


def test_refuses_an_unknown_format(store: Store, images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"use \.png"):
        contact_sheet(store, images, tmp_path / "views.nonsense")


@pytest.mark.usefixtures("without_matplotlib")
def test_says_how_to_get_matplotlib(store: Store, images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pip install 'logitstore\[report\]'"):
        contact_sheet(store, images, tmp_path / "views.png")
