"""Packing what can be read only once through: timm's streams."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import picture
from pack_cases import files, jpeg, opened, packed
from PIL import Image

from logitstore.errors import DataError, DecodeError
from logitstore.images import streams
from logitstore.images.streams import Stream, stream_pixels

BASE = picture(300, 400)


class Reader:
    """As timm's readers of streams are: pairs from the beginning each time, Pillow images or arrays.

    Args:
        count: samples.
        breaks_at: sample before which it breaks off.
        changed: sample that is another one.
        target: what stands beside an image.
    """

    unknown = False
    class_to_idx = {"cat": 1, "ant": 0, "bee": 2}  # noqa: RUF012

    def __init__(self, count: int, *, breaks_at: int | None = None, changed: int | None = None, target: Any = None):
        self.count, self.breaks_at, self.changed, self.target = count, breaks_at, changed, target
        self.passes = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        self.passes += 1
        for i in range(self.count):
            if i == self.breaks_at:
                raise ConnectionError("the line\nis dead")
            image = self.image(i)
            target = self.target(i) if self.target else i % 3
            yield (image if i % 2 else Image.fromarray(image)), target

    def image(self, i: int) -> np.ndarray[Any, Any]:
        return np.roll(BASE, 100 if i == self.changed else i, axis=0)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let timm's ``create_dataset`` give these readers, one a split."""

    def put(**readers: Reader) -> None:
        class Dataset:
            def __init__(self, reader: Reader) -> None:
                self.reader = reader

        def create(name: str, root: str | None, split: str, **options: Any) -> Dataset:
            assert (name, root, options.pop("input_img_mode")) == ("wds/some/set", "/data", "")
            if split not in readers:
                raise DataError(f"timm cannot open the {split} split of {name}.")
            if readers[split].unknown and not options:
                raise DataError("Dataset length is unknown, please pass `num_samples` explicitly.")
            return Dataset(readers[split])

        monkeypatch.setattr(streams, "create", create)

    return put


DATA = "WDS/some/set@/data"
OPTIONS = {"shard_mib": 1, "short_side": 300}


def test_a_stream_is_packed_in_its_order_with_its_labels(tmp_path: Path, serve: Any) -> None:
    train, validation = Reader(50), Reader(5)
    serve(train=train, validation=validation)
    result = packed(DATA, tmp_path / "out", **OPTIONS)
    assert [(split.split, split.images) for split in result.splits] == [("train", 50), ("val", 5)]
    assert (train.passes, validation.passes) == (1, 1)
    images = opened(tmp_path / "out")
    assert (images.name, images.class_names, images.image_name(3)) == ("set", ("ant", "cat", "bee"), "image 3")
    assert images.labels is not None and images.labels.tolist() == [i % 3 for i in range(50)]
    for i in (0, 1, 49):
        expected = Image.open(io.BytesIO(jpeg(train.image(i), quality=90)))
        assert np.array_equal(images.pixels(i), np.asarray(expected))
    assert result.splits[0].shards > 1
    assert packed(DATA, tmp_path / "out", **OPTIONS).splits[0].made == 0 and train.passes == 1


def test_a_stream_that_broke_off_is_read_again_and_packed_on(tmp_path: Path, serve: Any) -> None:
    serve(train=Reader(60))
    packed(DATA, tmp_path / "whole", **OPTIONS)
    serve(train=Reader(60, breaks_at=50))
    with pytest.raises(DataError, match=r"wds/some/set \(train\) broke off after 50 images \(the line is dead\)"):
        packed(DATA, tmp_path / "out", **OPTIONS)
    done = len(list((tmp_path / "out" / "train").glob("part-*.json")))
    assert done >= 1
    for other in (Reader(60, changed=3), Reader(4), Reader(60, target=lambda i: 0)):
        serve(train=other)
        with pytest.raises(DataError, match=r"does not begin with the .* images that are packed already"):
            packed(DATA, tmp_path / "out", **OPTIONS)
    serve(train=Reader(60))
    result = packed(DATA, tmp_path / "out", **OPTIONS)
    assert 0 < result.splits[0].made < 60
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_stream_of_unknown_length_is_read_to_its_end(tmp_path: Path, serve: Any) -> None:
    reader = Reader(8)
    absent = Reader(8, breaks_at=0)
    reader.unknown = absent.unknown = True
    serve(train=reader, validation=absent)
    result = packed(DATA, tmp_path / "out", **OPTIONS)
    assert result.images == 8 and "broke off after 0 images" in result.notes[0]


def test_the_fingerprint_is_of_what_the_stream_gave(tmp_path: Path, serve: Any) -> None:
    fingerprints = []
    for number, reader in enumerate([Reader(6), Reader(6), Reader(6, changed=5), Reader(7)]):
        serve(train=reader)
        fingerprints.append(packed(DATA, tmp_path / str(number)).splits[0].fingerprint)
    assert len(set(fingerprints)) == 3 and fingerprints[0] == fingerprints[1]
    serve(train=Reader(7))
    assert packed(DATA, tmp_path / "first", subset=6).images == 6


@pytest.mark.parametrize("target", [[1, 2], -1, "cat", None], ids=str)
def test_targets_that_are_no_class_numbers_are_no_labels(tmp_path: Path, serve: Any, target: object) -> None:
    serve(train=Reader(6, target=lambda i: target if i == 4 else np.int64(1)))
    packed(DATA, tmp_path / "out")
    images = opened(tmp_path / "out")
    assert images.labels is None
    with pytest.raises(DataError, match="has no labels to train on: its labels are not one class number each"):
        images.require_labels("to train on")


def test_images_of_a_stream_that_do_not_decode(tmp_path: Path, serve: Any) -> None:
    class Broken(Reader):
        def image(self, i: int) -> np.ndarray[Any, Any]:
            return super().image(i) if i != 3 else np.zeros((4, 5, 7), np.uint8)

    serve(train=Broken(6))
    with pytest.raises(DecodeError, match=r"Image 3 of wds/some/set cannot be packed \(uint8 \[4, 5, 7\] is"):
        packed(DATA, tmp_path / "out")
    result = packed(DATA, tmp_path / "out", skip_bad=True)
    assert (result.images, result.splits[0].left_out) == (5, 1)


def test_images_of_streams_are_decoded_like_all_others() -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    for image in (grey, grey[:, :, None], Image.fromarray(grey)):
        assert np.array_equal(stream_pixels(image), np.repeat(grey[:, :, None], 3, axis=2))
    turned = Image.fromarray(picture(6, 8))
    turned.info["exif"] = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
    assert stream_pixels(turned).shape == (8, 6, 3)
    with pytest.raises(ValueError, match="float64"):
        stream_pixels(np.zeros((4, 4)))


def test_what_cannot_be_opened_is_one_sentence(tmp_path: Path, serve: Any) -> None:
    serve(train=Reader(3))
    with pytest.raises(DataError, match="timm cannot open the test split"):
        packed(DATA, tmp_path / "out", split="test")
    assert list(Stream(Reader(2), name="a/b", split="train")) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("data", ["wds/x@/nowhere", "tfds/mnist", "hfids/user/name"])
def test_a_library_that_is_missing_is_named(tmp_path: Path, data: str) -> None:
    """None of the three is a dependency."""
    with pytest.raises(DataError, match="needs another library: pip install"):
        packed(data, tmp_path / "out")
