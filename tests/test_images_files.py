"""Folders and tar files: order, classes, splits, fingerprints."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from logitstore.errors import DataError, InputError
from logitstore.images import ImageSet, open_images
from logitstore.images.files import natural_key
from tests.helpers import write_images


def names(images: ImageSet) -> list[str]:
    return [images.image_name(i) for i in range(len(images))]


def as_folder(folder: Path) -> str:
    return str(folder)


def as_tar(folder: Path) -> str:
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        for child in sorted(folder.iterdir(), reverse=True):
            archive.add(child, f"./{child.name}")
    return str(path)


both = pytest.mark.parametrize("as_data", [as_folder, as_tar])
AsData = Callable[[Path], str]


@both
def test_class_folders_give_labels_in_natural_order(tmp_path: Path, as_data: AsData) -> None:
    write_images(tmp_path / "d", ["n10/b.png", "n2/img10.png", "n2/img2.png", "n2/deep/a.jpg", "N1/x.webp"])
    images = open_images(as_data(tmp_path / "d"))
    assert images.class_names == ("N1", "n2", "n10") and images.num_classes == 3
    assert names(images) == ["N1/x.webp", "n2/deep/a.jpg", "n2/img2.png", "n2/img10.png", "n10/b.png"]
    assert images.labels is not None and images.labels.tolist() == [0, 1, 1, 1, 2]
    assert images.name == "d" and images.split == "train" and images.flippable and images.default_size == 224
    assert [images.pixels(i).shape for i in range(5)] == [(12, 16, 3)] * 5


@both
@pytest.mark.parametrize(
    "files", [["b.png", "a.jpg"], ["only/b.png", "only/a.png"], ["c.png", "x/a.png", "y/b.png"]],
    ids=["flat", "one folder", "beside folders"],
)
def test_images_without_classes_have_no_labels(tmp_path: Path, as_data: AsData, files: list[str]) -> None:
    write_images(tmp_path / "d", files)
    images = open_images(as_data(tmp_path / "d"))
    assert (images.labels, images.class_names, images.num_classes) == (None, None, None)
    assert names(images) == sorted(files)
    with pytest.raises(DataError, match=r"d \(train\) has no labels to fine-tune on: .*class folders\.$"):
        images.require_labels("to fine-tune on")


@both
@pytest.mark.parametrize("val", ["val", "validation", "Val"])
def test_splits_are_never_classes(tmp_path: Path, as_data: AsData, val: str) -> None:
    write_images(tmp_path / "d", [f"{s}/{c}/{i}.png" for s in ("train", val, "test") for c in "ab" for i in range(2)])
    (tmp_path / "d/readme").mkdir()
    data = as_data(tmp_path / "d")
    for split in ("train", "val", "test"):
        images = open_images(data, split=split)
        assert names(images) == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
        assert images.class_names == ("a", "b") and images.split == split and images.name == "d"


@both
def test_label_free_splits(tmp_path: Path, as_data: AsData) -> None:
    write_images(tmp_path / "d", ["train/1.png", "train/2.png", "val/3.png"])
    data = as_data(tmp_path / "d")
    assert names(open_images(data)) == ["1.png", "2.png"] and open_images(data).labels is None
    assert names(open_images(data, split="val")) == ["3.png"]


@both
def test_an_absent_split_is_refused(tmp_path: Path, as_data: AsData) -> None:
    write_images(tmp_path / "plain", ["a/1.png", "b/2.png"])
    plain = as_data(tmp_path / "plain")
    with pytest.raises(DataError, match=r"has no val split: .*--val-data"):
        open_images(plain, split="val")
    assert len(open_images(plain, split="val", whole=True)) == 2
    write_images(tmp_path / "half", ["train/a/1.png", "train/b/2.png"])
    for whole in (False, True):
        with pytest.raises(DataError, match="has train, but no val split"):
            open_images(as_data(tmp_path / "half"), split="val", whole=whole)


@both
def test_a_class_called_train_is_not_taken_for_a_split_in_silence(tmp_path: Path, as_data: AsData) -> None:
    write_images(tmp_path / "d", ["bus/1.png", "car/2.png", "train/3.png"])
    with pytest.raises(DataError, match=r"holds train/ beside other folders with images \(bus, car\)"):
        open_images(as_data(tmp_path / "d"))


def test_the_folder_of_a_split_is_called_after_the_data_set(tmp_path: Path) -> None:
    write_images(tmp_path / "birds", ["train/a/1.png", "train/b/2.png"])
    assert open_images(str(tmp_path / "birds/train")).name == "birds"


def test_hidden_and_other_files_are_left_out(tmp_path: Path) -> None:
    write_images(tmp_path, ["a/1.png", "b/2.png", "a/._1.png", ".cache/3.png"])
    (tmp_path / "a/notes.txt").write_text("no image")
    assert names(open_images(str(tmp_path))) == ["a/1.png", "b/2.png"]


def test_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, ["a/1.png", "a/01.png", "A/1.png", "a/10.png", "b/2.png"], size=(2, 2))
    expected = names(open_images(str(tmp_path)))
    assert expected == ["A/1.png", "a/01.png", "a/1.png", "a/10.png", "b/2.png"]
    scandir = os.scandir

    class Backwards(list):  # type: ignore[type-arg]
        def __enter__(self) -> Backwards:
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "scandir", lambda folder: Backwards(reversed(list(scandir(folder)))))
    assert names(open_images(str(tmp_path))) == expected


def test_natural_key() -> None:
    ordered = ["", "1", "01x", "2", "10", "a", "a1b", "a1b2", "a²", "B", "é"]
    assert sorted(set(ordered), key=natural_key) == ordered


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write_images(tmp_path, ["d/a/1.png", "elsewhere/2.png"])
    (tmp_path / "d/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "d/a/up").symlink_to(tmp_path / "d/a")
    assert names(open_images(str(tmp_path / "d"))) == ["a/1.png", "b/2.png"]
    (tmp_path / "d/gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"gone\.png cannot be read"):
        open_images(str(tmp_path / "d"))


@both
def test_fingerprint_is_of_names_sizes_and_order(tmp_path: Path, as_data: AsData) -> None:
    folder = tmp_path / "d"
    write_images(folder, ["a/1.png", "a/2.png", "b/3.png"])
    first = open_images(as_data(folder)).fingerprint
    assert len(first) == 64 and first == open_images(as_data(folder)).fingerprint
    shutil.copytree(folder, tmp_path / "elsewhere" / "d")
    assert open_images(as_data(tmp_path / "elsewhere" / "d")).fingerprint == first

    seen = {first}
    (folder / "a/2.png").rename(folder / "a/0.png")
    seen.add(open_images(as_data(folder)).fingerprint)
    with (folder / "b/3.png").open("ab") as file:
        file.write(b"longer")
    seen.add(open_images(as_data(folder)).fingerprint)
    (folder / "b").rename(folder / "c")
    seen.add(open_images(as_data(folder)).fingerprint)
    (folder / "a/1.png").unlink()
    seen.add(open_images(as_data(folder)).fingerprint)
    assert len(seen) == 5


def test_folder_and_tar_are_the_same_data_set(tmp_path: Path) -> None:
    write_images(tmp_path / "d", ["train/a/1.png", "train/b/2.jpg", "val/a/3.png"])
    folder, tar = open_images(as_folder(tmp_path / "d")), open_images(as_tar(tmp_path / "d"))
    assert folder.describe() == tar.describe() and folder.name == tar.name
    assert all(np.array_equal(folder.pixels(i), tar.pixels(i)) for i in range(2))
    assert tar.check() == []


def test_a_tar_file_may_hold_the_folder_itself(tmp_path: Path) -> None:
    write_images(tmp_path / "x/y/flowers", ["a/1.png", "b/2.jpg"])
    write_images(tmp_path / "z/flowers/train", ["1.png", "2.jpg"])
    inner = open_images(str(tmp_path / "x/y/flowers"))
    assert open_images(as_tar(tmp_path / "x")).describe() == inner.describe()
    assert names(open_images(as_tar(tmp_path / "z"))) == ["1.png", "2.jpg"]


def test_names_that_are_no_utf8_can_be_printed(tmp_path: Path) -> None:
    write_images(tmp_path, ["a/1.png", "b/2.png"])
    try:
        (tmp_path / "b").rename(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff"))
    except OSError:
        pytest.skip("this file system takes no such names")
    images = open_images(str(tmp_path))
    assert images.image_name(1) == "b\ufffd/2.png" and images.class_names == ("a", "b\ufffd")
    assert images.pixels(1).shape == (12, 16, 3) and len(images.fingerprint) == 64


def test_describe_holds_no_path(tmp_path: Path) -> None:
    write_images(tmp_path, ["a/1.png", "b/2.png"])
    described = open_images(str(tmp_path)).describe()
    assert set(described) == {"count", "fingerprint", "class_names"}
    assert described["count"] == 2 and described["class_names"] == ["a", "b"]


def test_subset_is_evenly_spaced_and_renumbered(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{c}/{i}.png" for c in "ab" for i in range(5)], size=(2, 2))
    whole, some = open_images(str(tmp_path)), open_images(str(tmp_path), subset=4)
    assert names(some) == ["a/0.png", "a/2.png", "b/0.png", "b/2.png"]
    assert some.labels is not None and some.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(some.pixels(3), whole.pixels(7))
    assert len({whole.fingerprint, some.fingerprint, open_images(str(tmp_path), subset=5).fingerprint}) == 3
    assert open_images(str(tmp_path), subset=10).fingerprint == whole.fingerprint
    for count in (0, 11):
        with pytest.raises(InputError, match="1 to 10 images"):
            whole.subset(count)
    (tmp_path / "a/2.png").write_bytes(b"")
    (tmp_path / "a/1.png").write_bytes(b"")  # not in the subset
    assert some.check(skip_bad=True) == ["a/2.png"]


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No data set at nowhere: give digits"):
        open_images("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        open_images(str(tmp_path / "empty"))
    (tmp_path / "bad.tar").write_bytes(b"no tar file" * 100)
    with pytest.raises(DataError, match="unpack it"):
        open_images(str(tmp_path / "bad.tar"))
