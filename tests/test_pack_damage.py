"""Packed images that are damaged, unfinished or mistaken for their originals: found, and named."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dump_cases
import numpy as np
import pytest
from click.testing import CliRunner
from pack_cases import opened, packed, write_pictures

import cli
from logitstore.dump import DumpConfig, dump
from logitstore.errors import DataError, DecodeError, InputError, MismatchError
from logitstore.images import ImageSet, open_images
from logitstore.images.packed import INDEX, LABELS, MANIFEST, MARK, NAME_ENDS, NAMES, shard_name
from logitstore.loader.matching import check_images
from logitstore.pack import verify_packed
from logitstore.recheck import VerifyConfig, verify
from logitstore.store import open_store


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Twelve packed pictures in one split of one shard."""
    write_pictures(tmp_path / "data", 12)
    packed(tmp_path / "data", tmp_path / "out")
    return tmp_path / "out"


def alter(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def middle(images: ImageSet, i: int) -> int:
    """A byte in the middle of an image."""
    entry = images.index[i]  # type: ignore[attr-defined]
    return int(entry["offset"]) + int(entry["length"]) // 2


def test_whole_images_verify(out: Path) -> None:
    report = verify_packed(str(out))
    assert (report.ok, report.images_checked, report.errors) == (True, 12, ())
    assert verify(VerifyConfig(store=str(out))) == report
    result = CliRunner().invoke(cli.main, ["verify", str(out), "--json"])
    assert result.exit_code == 0 and json.loads(result.stdout) == report.to_dict()
    with pytest.raises(InputError, match="no views to replay"):
        verify(VerifyConfig(store=str(out), data="digits"))


def test_a_flipped_bit_is_named_where_it_is_read_and_by_verify(out: Path) -> None:
    images = opened(out)
    alter(out / "train" / shard_name(0), middle(images, 7))
    for read in (images.encoded, images.pixels, images.source, images.subset(11).pixels, opened(out).pixels):
        with pytest.raises(DecodeError, match=r"c1/10.jpg of data is damaged: .*/shard-00000.bin differ"):
            for i in range(12):
                read(i)
    assert all(np.array_equal(images.pixels(i), opened(out).pixels(i)) for i in range(7))
    report = verify_packed(str(out))
    assert not report.ok and report.images_checked == 11
    (error,) = report.errors
    assert "shard-00000.bin differs from its checksum, 1 of its images is damaged (c1/10.jpg)" in error
    assert CliRunner().invoke(cli.main, ["verify", str(out)]).exit_code == 1


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


@pytest.mark.parametrize("damage", [cut, Path.unlink], ids=["cut", "missing"])
def test_an_incomplete_shard_is_found_before_a_long_run(out: Path, damage: Callable[[Path], None]) -> None:
    damage(out / "train" / shard_name(0))
    images = opened(out)
    for check in (images.check, images.subset(11).check):
        with pytest.raises(DataError, match=r"shard-00000.bin|12 of the 12|11 of the 11"):
            check()
    with pytest.raises(DecodeError, match=r"shard-00000.bin (has .* instead of|cannot be read)"):
        images.encoded(0)
    report = verify_packed(str(out))
    assert not report.ok and report.images_checked == 0
    assert re.search(r"shard-00000.bin (has .* instead of|cannot be read)", *report.errors)


@pytest.mark.parametrize("name", [INDEX, LABELS, NAME_ENDS])
def test_an_array_of_another_size_is_refused(out: Path, name: str) -> None:
    np.save(out / "train" / name, np.load(out / "train" / name)[:-1])
    with pytest.raises(DataError, match=rf"{name} holds .* \[11\], not .* \[12\]"):
        opened(out)
    report = verify_packed(str(out))
    assert not report.ok and report.images_checked == 0


@pytest.mark.parametrize("damage", [cut, Path.unlink], ids=["cut", "missing"])
def test_names_that_are_not_there_in_full_are_refused(out: Path, damage: Callable[[Path], None]) -> None:
    damage(out / "train" / NAMES)
    with pytest.raises(DataError, match=r"names.bin (has .* instead of|cannot be read)"):
        opened(out)
    report = verify_packed(str(out))
    assert not report.ok and report.images_checked == 0


def test_files_are_closed_when_nobody_reads_any_more(out: Path) -> None:
    def held() -> int:
        return sum(path.resolve().name == shard_name(0) for path in Path("/proc/self/fd").iterdir())

    images = opened(out)
    copy = images.relabelled(images.class_names[::-1])  # type: ignore[index]
    images.encoded(0)
    copy.pixels(1)
    assert held() == 1
    del images
    assert held() == 1
    del copy
    assert held() == 0


@pytest.mark.parametrize("name", [INDEX, LABELS, NAME_ENDS, NAMES])
def test_verify_finds_altered_arrays(out: Path, name: str) -> None:
    path = out / "train" / name
    alter(path, path.stat().st_size - 1)
    report = verify_packed(str(out))
    assert not report.ok and any(f"{name} differs from its checksum" in error for error in report.errors)


def test_a_damaged_index_entry_is_found_when_it_is_read(out: Path) -> None:
    index = np.load(out / "train" / INDEX, mmap_mode="r+")
    index["offset"][3] += 1
    index.flush()
    with pytest.raises(DecodeError, match="is damaged"):
        opened(out).encoded(3)


@pytest.mark.parametrize(
    ("field", "value"), [("shard", 7), ("offset", 2**64 - 1), ("offset", 2**63 - 1), ("length", 2**32 - 1)]
)
def test_an_index_entry_outside_of_the_shards_is_damage(out: Path, field: str, value: int) -> None:
    index = np.load(out / "train" / INDEX, mmap_mode="r+")
    index[field][3] = value
    index.flush()
    images = opened(out)
    for read in (images.encoded, images.ends, images.source):
        with pytest.raises(DecodeError, match=r"c0/9.jpg of data is damaged: its entry in .*index.npy lies outside"):
            read(3)
    assert images.encoded(4)


@pytest.mark.parametrize("end", [0, 2**63 + 5])
def test_a_damaged_end_of_a_name_costs_the_name_alone(out: Path, end: int) -> None:
    ends = np.load(out / "train" / NAME_ENDS, mmap_mode="r+")
    ends[3] = end
    ends.flush()
    images = opened(out)
    assert images.image_name(3) == "image 3" and images.image_name(2) == "c0/6.jpg"
    assert np.array_equal(images.pixels(3), opened(out).pixels(3))


def test_a_damaged_manifest_is_refused(out: Path) -> None:
    path = out / "train" / MANIFEST
    whole = json.loads(path.read_bytes())
    for damaged, message in [
        (json.dumps({**whole, "flippable": False}), "differs from its own checksum"),
        (json.dumps({**whole, "format_version": 2}), "has format version 2"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
    ]:
        path.write_text(damaged)
        with pytest.raises(DataError, match=message):
            opened(out)
        assert not verify_packed(str(out)).ok


def test_an_unfinished_split_is_not_whole(out: Path) -> None:
    (out / "val").mkdir()
    (out / "val" / "part-00000.json").write_text("{}")
    assert "val split" in verify_packed(str(out)).errors[0]
    with pytest.raises(DataError, match=r"val split of .* is not packed to its end"):
        open_images(str(out), split="val")
    (out / "empty").mkdir()
    shutil.copy(out / MARK, out / "empty")
    assert "holds no split" in verify_packed(str(out / "empty")).errors[0]
    with pytest.raises(DataError, match="holds no split that is packed"):
        open_images(str(out / "empty"))


@pytest.mark.parametrize("content", ['{"format":"logitstore pack"}', "{", "[]"])
def test_a_damaged_mark_is_found(out: Path, content: str) -> None:
    (out / MARK).write_text(content)
    report = verify_packed(str(out))
    assert (report.ok, report.images_checked) == (False, 12)
    assert "pack.json differs from its own checksum" in report.errors[0]


def test_a_store_belongs_to_packed_images_or_to_their_originals(tmp_path: Path) -> None:
    """And replays from those it was made of."""
    for name, side in (("out", 64), ("smaller", 48)):
        packed("digits", tmp_path / name, subset=70, split="train", short_side=side)
    stores = {}
    for name, data in {"packed": str(tmp_path / "out"), "original": "digits"}.items():
        config = DumpConfig(
            teacher="train_cases:pooled_teacher",
            data=data,
            store=str(tmp_path / name),
            subset=70,
            epochs=1,
            size=32,
            workers=1,
        )
        assert dump(config).complete
        stores[name] = open_store(config.store or "")
    original, images = open_images("digits", subset=70), opened(tmp_path / "out")
    check_images(stores["packed"], images)
    check_images(stores["original"], original)
    wanted = r"(?s)stored:  {0}.*present: {1}.*Packed images have other pixels than their originals"
    with pytest.raises(MismatchError, match=wanted.format("packed to a short side of 64 px", "originals, not packed")):
        check_images(stores["packed"], original)
    with pytest.raises(MismatchError, match=wanted.format("originals, not packed", "packed to a short side of 64 px")):
        check_images(stores["original"], images)
    with pytest.raises(MismatchError, match=wanted.format(".* 64 px at quality 90", ".* 48 px at quality 90")):
        check_images(stores["packed"], opened(tmp_path / "smaller"))
    report = verify(VerifyConfig(store=str(tmp_path / "packed"), data=str(tmp_path / "out")))
    assert report.ok and report.views_checked > 0  # type: ignore[union-attr]


MEMORY = """
import sys
from pathlib import Path
import numpy as np
from logitstore.images import open_images
from logitstore.images.packed import INDEX, LABELS, NAME_ENDS, NAMES, read_manifest
from logitstore.pack.finish import write_manifest

folder, count = Path(sys.argv[1]) / "train", int(sys.argv[2])
for name in (INDEX, LABELS):
    few = np.load(folder / name)
    np.save(folder / name, few[np.arange(count) % len(few)])
for name in (NAMES, NAME_ENDS):
    (folder / name).unlink()
write_manifest(folder, {**read_manifest(folder), "num_samples": count})
del few

def private():
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(lines[name].split()[0]) for name in ("RssAnon", "RssShmem"))

open_images(sys.argv[1]).pixels(0)  # what reading needs whatever N is
before = private()
images = open_images(sys.argv[1])
assert images.num_classes == 3 and images.fingerprint and images.describe() and images.check() == []
total = sum(int(images.labels[i]) + len(images.encoded(i)) for i in range(0, count, 997))
assert images.relabelled(images.class_names).labels[count - 1] < 3
print(private() - before)
"""


def test_private_memory_does_not_grow_with_the_number_of_images(out: Path) -> None:
    grown = subprocess.run(
        [sys.executable, "-c", MEMORY, str(out), "1000000"],
        capture_output=True,
        text=True,
        check=True,
        env=dump_cases.environment(),
    )
    assert int(grown.stdout) < 2048, "KiB; the index of a million images alone has 23,000"
