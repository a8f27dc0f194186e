"""``logitstore pack``: what is packed, how, and that it is a data set like any other."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import picture, write_images
from pack_cases import files, jpeg, opened, packed, write_pictures
from PIL import Image

import cli
from logitstore.errors import DataError, DecodeError, InputError, MismatchError
from logitstore.images import open_images
from logitstore.images.packed import INDEX, shard_name
from logitstore.locks import locked
from logitstore.pack import PackConfig, pack


def test_splits_keep_order_labels_classes_and_names(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data" / "train", 13)
    write_pictures(tmp_path / "data" / "val", 5, start=20)
    result = packed(tmp_path / "data", tmp_path / "out")
    assert [(split.split, split.images) for split in result.splits] == [("train", 13), ("val", 5)]
    for split in ("train", "val"):
        original, images = open_images(str(tmp_path / "data"), split=split), opened(tmp_path / "out", split)
        assert len(images) == len(original)
        assert np.array_equal(images.labels, original.labels)
        assert (images.class_names, images.name, images.split) == (original.class_names, original.name, split)
        assert [images.image_name(i) for i in range(5)] == [original.image_name(i) for i in range(5)]
        for i in range(len(images)):
            small = Image.fromarray(original.pixels(i)).resize((85, 64), Image.Resampling.BICUBIC)
            # Restart markers change no pixel.
            assert np.array_equal(images.pixels(i), np.asarray(Image.open(io.BytesIO(jpeg(small, quality=90)))))
            assert b"\xff\xdd\x00\x04" in images.encoded(i)
            assert images.index[i][["height", "width"]].item() == (64, 85)
            assert images.pixels(i).shape == (64, 85, 3)


def test_digits_keep_what_only_the_data_set_knows(tmp_path: Path) -> None:
    packed("digits", tmp_path / "out", subset=50)
    images, original = opened(tmp_path / "out"), open_images("digits", subset=50)
    assert (images.default_size, images.flippable, images.num_classes) == (32, False, 10)
    assert np.array_equal(images.labels, original.labels)
    assert images.packing == {"source": original.fingerprint, "short_side": 64, "quality": 90}
    distance = np.mean([np.abs(images.pixels(i).astype(int) - original.pixels(i)).mean() for i in range(50)])
    assert distance < 3
    assert len(opened(tmp_path / "out", "val")) == 50


@pytest.mark.parametrize(
    ("size", "expected"),
    [((64, 900), (64, 900)), ((65, 128), (64, 126)), ((300, 200), (96, 64)), ((10, 20), (10, 20))],
    ids=["short", "landscape", "portrait", "small"],
)
def test_nothing_is_scaled_up(tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    write_images(tmp_path / "data", ["a.png", "b.bmp"], size)
    packed(tmp_path / "data", tmp_path / "out")
    images = opened(tmp_path / "out")
    assert images.labels is None and images.class_names is None and images.num_classes is None
    for i in range(2):
        assert images.pixels(i).shape == (*expected, 3)
        assert images.encoded(i).startswith(b"\xff\xd8\xff")


def test_a_small_jpeg_is_packed_byte_for_byte(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    contents = {
        "a.jpg": jpeg(picture(50, 70), quality=60),
        "b.jpg": jpeg(picture(64, 80), progressive=True),
        "c.jpg": jpeg(picture(40, 60), exif=turned.tobytes()),
        "d.jpg": jpeg(picture(40, 60)) + b"trailing bytes",
        "e.jpg": jpeg(picture(65, 80)),
    }
    (tmp_path / "data").mkdir()
    for name, content in contents.items():
        (tmp_path / "data" / name).write_bytes(content)
    packed(tmp_path / "data", tmp_path / "out")
    images, original = opened(tmp_path / "out"), open_images(str(tmp_path / "data"))
    for i, name in enumerate("abcd"):
        assert images.encoded(i) == contents[f"{name}.jpg"]
        assert np.array_equal(images.pixels(i), original.pixels(i))
        assert images.index[i][["height", "width"]].item() == original.pixels(i).shape[:2]
    assert images.encoded(4) != contents["e.jpg"] and images.pixels(4).shape == (64, 78, 3)
    assert images.check() == []


def test_a_sides_limit_of_jpeg_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    Image.new("RGB", (65501, 2)).save(tmp_path / "data" / "long.png")
    write_images(tmp_path / "data", ["short.png"])
    with pytest.raises(DecodeError, match=r"long.png of data cannot be packed: 65501 x 2 pixels are more"):
        packed(tmp_path / "data", tmp_path / "out")
    result = packed(tmp_path / "data", tmp_path / "out", skip_bad=True)
    assert (result.images, result.splits[0].left_out) == (1, 1)


def test_the_bytes_do_not_depend_on_threads_nor_the_fingerprint_on_shards(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 70, size=(300, 400))
    few = packed(tmp_path / "data", tmp_path / "few", short_side=300, shard_mib=1)
    many = packed(tmp_path / "data", tmp_path / "many", short_side=290, shard_mib=1, workers=3)
    again = packed(tmp_path / "data", tmp_path / "again", short_side=290, shard_mib=1, workers=1)
    one = packed(tmp_path / "data", tmp_path / "one", short_side=290)
    assert files(tmp_path / "many") == files(tmp_path / "again")
    assert many.splits[0].shards > 2 and one.splits[0].shards == 1
    assert many.splits == again.splits and many.splits[0].fingerprint == one.splits[0].fingerprint
    assert few.splits[0].fingerprint != one.splits[0].fingerprint
    images = opened(tmp_path / "many")
    sizes = [(tmp_path / "many" / "train" / shard_name(k)).stat().st_size for k in range(many.splits[0].shards)]
    assert sum(sizes) == sum(int(images.index[i]["length"]) for i in range(70))
    assert all((1 << 20) <= size < 1.2 * (1 << 20) for size in sizes[:-1])
    assert [images.encoded(i) for i in range(70)] == [opened(tmp_path / "one").encoded(i) for i in range(70)]


def test_the_fingerprint_records_the_packing(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 6)
    base: dict[str, Any] = {"short_side": 64, "quality": 90}
    fingerprints = {
        packed(tmp_path / "data", tmp_path / str(number), **{**base, **options}).splits[0].fingerprint
        for number, options in enumerate([{}, {"short_side": 63}, {"quality": 89}, {"subset": 5}, {"subset": 6}])
    }
    assert len(fingerprints) == 4  # six of six are all
    (tmp_path / "data" / "c0" / "0.jpg").write_bytes(jpeg(picture(120, 160, 99)))
    assert packed(tmp_path / "data", tmp_path / "changed").splits[0].fingerprint not in fingerprints


def test_a_subset_and_packed_images_packed_again(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 10)
    packed(tmp_path / "data", tmp_path / "out", subset=4)
    part = open_images(str(tmp_path / "data"), subset=4)
    images = opened(tmp_path / "out")
    assert [images.image_name(i) for i in range(4)] == [part.image_name(i) for i in range(4)]
    packed(tmp_path / "out", tmp_path / "smaller", short_side=32)
    smaller = opened(tmp_path / "smaller")
    assert smaller.packing == {"source": images.fingerprint, "short_side": 32, "quality": 90}
    assert smaller.pixels(3).shape == (32, 42, 3) and np.array_equal(smaller.labels, images.labels)


def test_what_is_done_is_not_done_again_and_nothing_else_is_touched(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data" / "train", 6)
    write_pictures(tmp_path / "data" / "test", 4)
    out = tmp_path / "out"
    first = packed(tmp_path / "data", out)
    assert first.notes and "has no val split" in first.notes[0] and "--split val=" in first.notes[0]
    before = files(out)
    again = packed(tmp_path / "data", out)
    assert again.splits == (replace(first.splits[0], made=0),) and again.images_per_second == 0
    assert files(out) == before
    more = packed(tmp_path / "data", out, split="val=test")
    assert (more.splits[0].split, more.images, more.notes) == ("val", 4, ())
    assert before.items() <= files(out).items()
    with pytest.raises(MismatchError, match=r'(?s)"short_side":64.*"short_side":32.*Pack into another folder'):
        packed(tmp_path / "data", out, short_side=32)
    with pytest.raises(DataError, match="has train, val, but no test split"):
        open_images(str(out), split="test")
    with locked(out / ".lock", "held"), pytest.raises(InputError, match="Another process is packing"):
        packed(tmp_path / "data", out)


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 6)
    before = sorted((tmp_path / "data").rglob("*"))
    with pytest.raises(InputError, match="holds something other than packed images"):
        packed(tmp_path / "data", tmp_path / "data")
    with pytest.raises(DataError, match="No data set at"):
        packed(tmp_path / "nowhere", tmp_path / "out")
    assert sorted((tmp_path / "data").rglob("*")) == before and not (tmp_path / "out").exists()


def test_bad_images_are_named_or_left_out(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 9)
    bad = tmp_path / "data" / "c1" / "4.jpg"
    bad.write_bytes(bad.read_bytes()[:900])
    with pytest.raises(DataError, match=r"c1/4.jpg; replace or remove"):
        packed(tmp_path / "data", tmp_path / "out")
    with pytest.raises(DataError, match="not packed to its end"):
        open_images(str(tmp_path / "out"))
    result = packed(tmp_path / "data", tmp_path / "out", skip_bad=True)
    assert (result.images, result.splits[0].left_out) == (8, 1)
    images = opened(tmp_path / "out")
    assert [images.image_name(i) for i in range(8)] == [
        name for name in map(open_images(str(tmp_path / "data")).image_name, range(9)) if name != "c1/4.jpg"
    ]
    assert images.labels is not None and images.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_nothing_but_bad_images_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jpg").write_bytes(b"\xff\xd8\xff\xff\xd9")
    with pytest.raises(DataError, match="no image that decodes"):
        packed(tmp_path / "data", tmp_path / "out", skip_bad=True)


def test_a_data_set_named_for_one_purpose_may_have_one_split(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 6)
    packed(tmp_path / "data", tmp_path / "out")
    assert len(open_images(str(tmp_path / "out"), split="val", whole=True)) == 6
    with pytest.raises(DataError, match="has train, but no val split"):
        open_images(str(tmp_path / "out"), split="val")


def test_labels_stay_in_their_file_when_the_classes_are_the_same(tmp_path: Path) -> None:
    packed("digits", tmp_path / "out", subset=20)
    images = opened(tmp_path / "out")
    assert isinstance(images.labels.base, np.memmap) and isinstance(images.index.base, np.memmap)
    assert images.relabelled(images.class_names) is images
    turned = images.relabelled(images.class_names[::-1])
    assert np.array_equal(turned.labels, 9 - images.labels)
    assert np.array_equal(turned.pixels(3), images.pixels(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 0}, "--quality must lie in"),
        ({"short_side": 0}, "--short-side must be at least 1"),
        ({"shard_mib": 0}, "--shard-mib must be at least 1"),
        ({"split": "a/b"}, "--split names a folder"),
        ({"split": "val="}, "--split is a name"),
        ({"split": ".."}, "--split is a name"),
    ],
)
def test_unusable_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PackConfig(data="digits", out="out", **options)


def test_the_reader_of_the_documentation_agrees_with_ours(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "packed.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(code, "docs/packed.md", "exec"), namespace)
    packed("digits", tmp_path / "out", subset=20)
    theirs, ours = namespace["Packed"](tmp_path / "out" / "train"), opened(tmp_path / "out")
    assert [theirs[i] for i in range(20)] == [ours.encoded(i) for i in range(20)]
    described = set(re.findall(r"`(\w+)`", text))
    assert {*theirs.manifest, *theirs.manifest["packed"], *theirs.index.dtype.names} <= described


def test_the_command_prints_the_result(tmp_path: Path) -> None:
    arguments = ["pack", str(tmp_path / "out"), "--data", "digits", "--subset", "30", "--json"]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["images"], report["out"]) == (60, str(tmp_path / "out"))
    assert report == {**pack(PackConfig(data="digits", out=str(tmp_path / "out"), subset=30)).to_dict()} | {
        "images_per_second": report["images_per_second"],
        "splits": [{**split, "made": 30} for split in report["splits"]],
    }
    assert (tmp_path / "out" / "train" / INDEX).exists()
    text = CliRunner().invoke(cli.main, arguments[:-1]).stdout
    assert "splits:" in text and "train" in text
