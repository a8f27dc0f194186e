"""Digits, npz files, timm's data sets, and matching classes by name."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from logitstore.errors import DataError, DecodeError, InputError
from logitstore.images import match_classes, open_images
from logitstore.images.timm_sets import ReaderImages, wrap_torchvision
from tests.helpers import picture, write_images


def test_digits_have_a_fixed_stratified_split() -> None:
    train, val = open_images("digits"), open_images("digits", split="val")
    assert (len(train), len(val)) == (1437, 360)
    assert train.class_names == val.class_names == tuple("0123456789")
    assert not train.flippable and train.default_size == 32 and train.name == "digits"
    assert train.labels is not None and val.labels is not None
    assert np.bincount(val.labels).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    assert train.fingerprint == "c7677ab8c6f6ed0f2ec450fe5d63d95008dd70f16e1f4a9b3128c8cc4b0d4d55"
    pixels = train.pixels(0)
    assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8
    assert pixels[0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0 0 5 13 9 1 0 0 of 16
    with pytest.raises(DataError, match="splits train and val"):
        open_images("digits", split="test")


def test_digits_splits_are_disjoint_and_whole() -> None:
    from sklearn.datasets import load_digits

    parts = [open_images("digits", split=split) for split in ("train", "val")]
    rows = [part.pixels(i)[:, :, 0].tobytes() for part in parts for i in range(len(part))]
    values = load_digits().data.astype(np.int64)
    assert sorted(rows) == sorted(((v * 255 + 8) // 16).astype(np.uint8).tobytes() for v in values)


def save(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_npz_with_everything(tmp_path: Path) -> None:
    images = np.stack([picture(5, 6, seed) for seed in range(4)])
    labels = np.array([1, 0, 2, 1])
    data = open_images(save(tmp_path / "x.npz", images=images, labels=labels, label_names=["a", "b", "c"]))
    assert (data.name, data.class_names, data.num_classes, len(data)) == ("x", ("a", "b", "c"), 3, 4)
    assert data.labels is not None and data.labels.tolist() == [1, 0, 2, 1] and data.labels.dtype == np.int64
    assert np.array_equal(data.pixels(2), images[2]) and data.check() == []
    with pytest.raises(ValueError, match="read-only"):
        data.pixels(2)[:] = 0


@pytest.mark.parametrize("shape", [(3, 5, 6), (3, 5, 6, 1)])
def test_npz_of_grey_images_without_labels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = np.arange(90, dtype=np.uint8).reshape(shape)
    data = open_images(save(tmp_path / "x.npz", images=images))
    assert data.labels is None and data.num_classes is None
    assert data.pixels(1).shape == (5, 6, 3) and (data.pixels(1) == images[1].reshape(5, 6, 1)).all()
    with pytest.raises(DataError, match="has no labels to evaluate"):
        data.require_labels("to evaluate")


def test_npz_fingerprint_is_of_the_images(tmp_path: Path) -> None:
    images = np.stack([picture(5, 6, seed) for seed in range(4)])
    first = open_images(save(tmp_path / "x.npz", images=images)).fingerprint
    assert open_images(save(tmp_path / "y.npz", images=images, labels=np.arange(4))).fingerprint == first
    assert open_images(save(tmp_path / "y.npz", images=images[::-1])).fingerprint != first
    assert open_images(save(tmp_path / "y.npz", images=images.reshape(4, 6, 5, 3))).fingerprint != first


IMAGES = np.zeros((3, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": np.arange(3)}, "has no images"),
        ({"images": IMAGES.astype(np.float32)}, r"images float32 \[3, 4, 4, 3\]"),
        ({"images": IMAGES.transpose(0, 3, 1, 2)}, r"images uint8 \[3, 3, 4, 4\]"),
        ({"images": IMAGES[:0]}, "holds no images"),
        ({"images": IMAGES[:0], "labels": np.arange(0)}, "holds no images"),
        ({"images": np.array([IMAGES[0], IMAGES[0, :2]], dtype=object)}, "no archive of plain arrays"),
        ({"images": IMAGES, "labels": np.arange(2)}, "one for each of the 3 images"),
        ({"images": IMAGES, "labels": np.eye(3)}, "whole numbers"),
        ({"images": IMAGES, "labels": np.array([0, -1, 0])}, "at least 0"),
        ({"images": IMAGES, "labels": np.arange(3), "label_names": ["a", "b"]}, "below 2"),
        ({"images": IMAGES, "labels": np.arange(3), "label_names": 3}, "must be a list"),
    ],
)
def test_unusable_npz_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_images(save(tmp_path / "x.npz", **arrays))


def test_npz_has_no_splits(tmp_path: Path) -> None:
    data = save(tmp_path / "x.npz", images=IMAGES)
    with pytest.raises(DataError, match="--val-data"):
        open_images(data, split="val")
    assert len(open_images(data, split="val", whole=True)) == 3
    (tmp_path / "bad.npz").write_bytes(b"PK no zip file")
    with pytest.raises(DataError, match="cannot be read"):
        open_images(str(tmp_path / "bad.npz"))
    (tmp_path / "bad.npz").write_bytes(b"neither a zip file nor an array")
    with pytest.raises(DataError, match=r"it is no archive of plain arrays\): save"):
        open_images(str(tmp_path / "bad.npz"))
    np.save(tmp_path / "one.npy", IMAGES)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(DataError, match="one array without a name"):
        open_images(str(tmp_path / "one.npz"))


@pytest.mark.parametrize("data", ["wds/imagenet", "tfds/mnist", "hfids/some/set", "WDS/x"])
def test_streams_are_refused(data: str) -> None:
    with pytest.raises(DataError, match=r"is a stream, .* logitstore pack --data .* OUT"):
        open_images(data)


def test_readers_do_not_write_to_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def create(*arguments: object, **options: object) -> SimpleNamespace:
        print("Files already downloaded and verified")
        return SimpleNamespace(data=IMAGES, targets=[0, 1, 1], classes=["cat", "dog"])

    monkeypatch.setattr("timm.data.create_dataset", create)
    assert len(open_images("torch/some_set")) == 3
    assert capsys.readouterr() == ("", "Files already downloaded and verified\n")


def test_timm_names_that_do_not_open(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"timm cannot open the train split of torch/nonsense \(Unknown torch"):
        open_images(f"torch/nonsense@{tmp_path}")


def test_torchvision_image_folder(tmp_path: Path) -> None:
    write_images(tmp_path, ["train/b/1.png", "train/a/2.png", "val/a/3.png", "val/b/4.png"])
    data = open_images(f"torch/image_folder@{tmp_path}")
    assert [data.image_name(i) for i in range(2)] == ["a/2.png", "b/1.png"] and data.class_names == ("a", "b")
    assert data.fingerprint == open_images(str(tmp_path)).fingerprint
    assert open_images(f"torch/image_folder@{tmp_path}", split="val").image_name(1) == "b/4.png"


def test_torchvision_arrays() -> None:
    import torch

    cifar = SimpleNamespace(data=IMAGES, targets=[0, 1, 1], classes=["cat", "dog"])
    data = wrap_torchvision(cifar, name="cifar10", split="train")
    assert data.class_names == ("cat", "dog") and data.labels is not None and data.labels.tolist() == [0, 1, 1]
    digits = torch.zeros(3, 4, 4, dtype=torch.uint8)
    mnist = SimpleNamespace(data=digits, targets=torch.tensor([0, 1, 1]), classes=["0", "1"])
    data = wrap_torchvision(mnist, name="mnist", split="val")
    assert data.pixels(0).shape == (4, 4, 3) and not data.flippable
    with pytest.raises(DataError, match="image folder"):
        wrap_torchvision(SimpleNamespace(), name="inaturalist", split="train")


class FakeReader:
    """As timm's reader of Hugging Face data sets, over pictures in memory."""

    def __init__(self, targets: list[Any], damaged: int | None = None) -> None:
        self.class_to_idx = {"no": 1, "yes": 0}
        self._targets = targets
        self._damaged = damaged

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, i: int) -> tuple[io.BytesIO, Any]:
        file = io.BytesIO()
        Image.fromarray(picture(5, 6, i)).save(file, "PNG")
        data = file.getvalue()
        return io.BytesIO(data[:60] if i == self._damaged else data), self._targets[i]

    def iter_targets(self) -> Iterator[Any]:
        return iter(self._targets)


def test_reader_of_timm() -> None:
    def wrap(reader: FakeReader, source: str = "hfds/x", split: str = "train") -> ReaderImages:
        return ReaderImages(reader, name="x", source=source, split=split)

    data = wrap(FakeReader([0, 1, 1], damaged=2))
    assert data.class_names == ("yes", "no") and data.labels is not None and data.labels.tolist() == [0, 1, 1]
    assert np.array_equal(data.pixels(1), picture(5, 6, 1))
    assert data.check(skip_bad=True) == ["image 2"]
    with pytest.raises(DecodeError, match="image 2 of x"):
        data.pixels(2)
    others = [wrap(FakeReader([0, 1, 0])), wrap(FakeReader([0, 1])), wrap(FakeReader([0, 1, 1]), "hfds/y"),
              wrap(FakeReader([0, 1, 1]), split="val")]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert wrap(FakeReader([0, 1, 1])).fingerprint == data.fingerprint
    assert wrap(FakeReader([[0, 1], [1], [0]])).labels is None
    assert wrap(FakeReader([0, -1, 1])).labels is None


def test_classes_are_matched_by_name() -> None:
    mapping = match_classes(["cat", "dog", "bird"], ["bird", "cat"])
    assert mapping is not None and mapping.tolist() == [2, 0]
    assert match_classes(None, ["a"]) is None and match_classes(["a"], None) is None
    with pytest.raises(InputError, match=r"1 of the data set's 2 classes .* \(cow; .*begin with cat, dog\)"):
        match_classes(["cat", "dog"], ["cat", "cow"])
    twice = ["crane", "cat", "crane"]
    assert match_classes(twice, ["cat"]) is not None
    with pytest.raises(InputError, match="several classes called crane"):
        match_classes(twice, ["cat", "crane"])


def test_labels_are_renumbered_by_name(tmp_path: Path) -> None:
    write_images(tmp_path, ["cat/1.png", "dog/2.png"])
    data = open_images(str(tmp_path))
    other = data.relabelled(["dog", "emu", "cat"])
    assert other.labels is not None and other.labels.tolist() == [2, 0] and other.num_classes == 3
    assert other.fingerprint == data.fingerprint and np.array_equal(other.pixels(1), data.pixels(1))
    assert data.labels is not None and data.labels.tolist() == [0, 1] and data.relabelled(None) is data
    some = data.subset(1).relabelled(["dog", "cat"])
    assert some.labels is not None and some.labels.tolist() == [1] and some.image_name(0) == "cat/1.png"
