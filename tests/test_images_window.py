"""Windows of JPEGs have the pixels of the whole, and nothing else of it is decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from logitstore.errors import DecodeError
from logitstore.images import ImageSet, open_images
from logitstore.images.jpeg import Frame, read_frame
from logitstore.images.source import EncodedSource
from logitstore.images.window import _copy_runs, decode_window, encode_for_windows
from logitstore.views import Renderer, view_spec
from tests.helpers import picture, write_images
from tests.jpeg_cases import HEIGHT, WIDTH, by_pillow, in_runs, ordinary, progressive, saved, sequential

EDGES = (0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65)


def frame_of(data: bytes) -> Frame:
    frame = read_frame(data)
    assert frame is not None
    return frame


def boxes(height: int, width: int, count: int) -> Iterator[tuple[int, int, int, int]]:
    """Left, top, width, height of boxes: with edges at those of blocks, then anywhere."""
    rng = np.random.default_rng(3)
    for i in range(count):
        if i % 2:
            ys, xs = rng.choice(height + 1, 2, replace=False), rng.choice(width + 1, 2, replace=False)
        else:
            ys = rng.choice([e for e in (*EDGES, height) if e <= height], 2, replace=False)
            xs = rng.choice([e for e in (*EDGES, width) if e <= width], 2, replace=False)
        yield int(min(xs)), int(min(ys)), int(abs(xs[0] - xs[1])), int(abs(ys[0] - ys[1]))


def seen(part: tuple[NDArray[np.uint8], int, int], width: int, height: int) -> NDArray[np.uint8]:
    pixels, x0, y0 = part
    assert pixels.flags.c_contiguous and x0 >= 0 and y0 >= 0
    return pixels[y0 : y0 + height, x0 : x0 + width]


@pytest.mark.parametrize("name", ordinary())
def test_windows_have_the_pixels_of_the_whole(name: str) -> None:
    data = ordinary()[name]
    whole = by_pillow(data)
    for left, top, width, height in boxes(HEIGHT, WIDTH, 40):
        source = EncodedSource(data, lambda: whole)
        assert (source.height, source.width) == (HEIGHT, WIDTH)
        np.testing.assert_array_equal(
            seen(source.window(left, top, width, height), width, height), whole[top : top + height, left : left + width]
        )


@pytest.mark.parametrize("name", in_runs())
def test_of_a_jpeg_in_runs_only_those_around_the_window_are_decoded(name: str) -> None:
    data = in_runs()[name]
    frame = frame_of(data)
    for left, top, width, height in boxes(HEIGHT, WIDTH, 40):
        part = decode_window(data, frame, left, top, width, height)
        assert part is not None
        rows, columns = part[0].shape[:2]
        assert rows <= height + 1 + frame.unit_height + 1
        assert columns <= width + 2 * frame.unit_width * frame.interval


@pytest.mark.parametrize("name", sequential())
def test_of_other_jpegs_the_rows_below_are_left_out(name: str) -> None:
    data = sequential()[name]
    frame = frame_of(data)
    part = decode_window(data, frame, 3, 10, 20, 30)
    assert part is not None and part[0].shape == (41, WIDTH, 3) and part[1:] == (3, 10)
    last = HEIGHT - HEIGHT % frame.unit_height  # nothing to leave out
    assert decode_window(data, frame, 3, 10, 20, last + 1 - 10) is None


@pytest.mark.parametrize("name", progressive())
def test_jpegs_in_several_scans_are_decoded_whole(name: str) -> None:
    data = progressive()[name]
    assert decode_window(data, frame_of(data), 3, 10, 20, 30) is None


def plain_runs(data: bytes, frame: Frame, rows: range, runs: range) -> bytes | None:
    """Twin of the kernel, by regular expressions."""
    parts = re.split(rb"(\xff[^\0])", data[frame.data_at :])
    coded, marks = parts[0:-1:2], parts[1::2]
    per_row = frame.units // frame.interval
    total = frame.unit_rows * per_row
    needed = (rows.stop - 1) * per_row + runs.stop
    expected = [bytes([0xFF, 0xD0 + i % 8]) for i in range(total - 1)] + [b"\xff\xd9"]
    if marks[:needed] != expected[:needed]:
        return None
    kept = [coded[row * per_row + run] for row in rows for run in runs]
    return data[: frame.data_at] + b"".join(
        run + (b"\xff\xd9" if i == len(kept) - 1 else expected[i % 8]) for i, run in enumerate(kept)
    )


@pytest.mark.parametrize("name", in_runs())
def test_the_kernel_equals_its_plain_twin(name: str) -> None:
    data = in_runs()[name]
    frame = frame_of(data)
    runs = frame.units // frame.interval
    spoilt = bytearray(data)
    spoilt[data.index(b"\xff\xd3", frame.data_at) + 1] = 0xD4
    wanted = [(range(0, 1), range(0, 1)), (range(1, 3), range(runs)), (range(2, 5), range(runs - 1, runs))]
    for file in (data, bytes(spoilt)):
        for rows, columns in [*wanted, (range(frame.unit_rows), range(runs))]:
            out = np.zeros(len(file), np.uint8)
            bounds = (rows.start, rows.stop, columns.start, columns.stop)
            length = _copy_runs(np.frombuffer(file, np.uint8), frame.data_at, frame.unit_rows, runs, *bounds, out)
            assert (None if length < 0 else out[:length].tobytes()) == plain_runs(file, frame, rows, columns)


def test_damage_outside_is_not_seen_and_damage_inside_is_pillows() -> None:
    data = in_runs()["rows"]
    frame = frame_of(data)
    whole = by_pillow(data)
    at = data.index(b"\xff\xd3", frame.data_at)  # ends the fourth row, at 64 of 75
    damaged = data[: at + 2] + bytes(len(data) - at - 4) + data[-2:]
    part = decode_window(damaged, frame, 5, 20, 50, 40)
    assert part is not None
    np.testing.assert_array_equal(seen(part, 50, 40), whole[20:60, 5:55])
    assert decode_window(damaged, frame, 5, 20, 50, 50) is None
    source = EncodedSource(damaged, lambda: by_pillow(damaged))
    np.testing.assert_array_equal(seen(source.window(5, 20, 50, 50), 50, 50), by_pillow(damaged)[20:70, 5:55])


@pytest.mark.parametrize("name", ordinary())
def test_of_a_jpeg_that_is_cut_off_there_are_no_windows(name: str) -> None:
    data = ordinary()[name][:-1]
    assert decode_window(data, frame_of(data), 3, 10, 20, 5) is None


def test_packed_jpegs_are_little_larger_and_in_runs_of_four_units_at_most() -> None:
    for width in (256, 341, 365, 384):  # 16, 22, 23 and 24 units
        image = Image.fromarray(picture(256, width))
        data = encode_for_windows(image, quality=90)
        frame = frame_of(data)
        assert frame.units % frame.interval == 0 and 1 <= frame.interval <= 4
        plain = saved(image, quality=90)
        assert len(plain) < len(data) < 1.06 * len(plain)
        np.testing.assert_array_equal(by_pillow(data), by_pillow(plain))


@pytest.fixture
def folder(tmp_path: Path) -> ImageSet:
    write_images(tmp_path, ["a.jpg", "b.png"], size=(50, 70))
    (tmp_path / "c.jpg").write_bytes(in_runs()["windows"])
    (tmp_path / "d.jpg").write_bytes(sequential()["4:2:0"][:-300])
    (tmp_path / "e.png").write_bytes(b"no picture")
    return open_images(str(tmp_path))


def test_views_of_sources_are_views_of_the_images(folder: ImageSet) -> None:
    renderer = Renderer(view_spec("tinyvit", size=24))
    out = np.empty((3, 24, 24), np.uint8)
    for images in (folder, folder.select([2, 1, 0]), open_images("digits")):
        for i in range(3):
            pixels = images.pixels(i)
            for seed in range(5):
                renderer.render_source(images.source(i), seed, out)
                np.testing.assert_array_equal(out, renderer.render(pixels, seed))


def test_sources_name_what_does_not_decode(folder: ImageSet) -> None:
    with pytest.raises(DecodeError, match=r"e\.png of .* does not decode \(cannot identify image file\)"):
        folder.source(4)
    source = folder.source(3)
    with pytest.raises(DecodeError) as raised:
        source.window(0, 0, 10, 10)
    with pytest.raises(DecodeError) as expected:
        folder.pixels(3)
    assert str(raised.value) == str(expected.value) and "d.jpg" in str(raised.value)
