"""The fast decoder of JPEGs gives Pillow's pixels, and leaves to Pillow what is not ordinary."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from logitstore.images.decode import decode
from logitstore.images.jpeg import decode_jpeg, read_frame
from tests.helpers import picture
from tests.jpeg_cases import HEIGHT, WIDTH, by_pillow, ordinary, saved, sequential, upright

PICTURE = Image.fromarray(picture(HEIGHT, WIDTH))


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("name", ordinary())
def test_ordinary_jpegs_decode_fast_to_pillows_pixels(name: str, wrap: Callable[[bytes], bytes]) -> None:
    data = ordinary()[name]
    pixels = decode_jpeg(wrap(data))
    assert pixels is not None and pixels.flags.c_contiguous and not pixels.flags.writeable
    np.testing.assert_array_equal(pixels, by_pillow(data))
    np.testing.assert_array_equal(decode(wrap(data)), pixels)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 2), (16, 16), (17, 15)])
def test_small_jpegs(size: tuple[int, int]) -> None:
    data = saved(Image.fromarray(picture(*size)))
    pixels = decode_jpeg(data)
    assert pixels is not None
    np.testing.assert_array_equal(pixels, by_pillow(data))


@pytest.mark.parametrize("tail", [b"\0\0", b"trailer of a phone", saved(PICTURE)])
def test_bytes_after_the_end_do_not_matter(tail: bytes) -> None:
    data = sequential()["4:2:0"]
    pixels = decode_jpeg(data + tail)
    assert pixels is not None
    np.testing.assert_array_equal(pixels, by_pillow(data))


def test_the_frame_tells_size_and_units() -> None:
    frame = read_frame(saved(PICTURE, restart_marker_blocks=3))
    assert frame is not None
    assert (frame.height, frame.width, frame.unit_height, frame.unit_width) == (HEIGHT, WIDTH, 16, 16)
    assert (frame.unit_rows, frame.units, frame.interval) == (5, 7, 3)
    grey = read_frame(saved(PICTURE.convert("L")))
    assert grey is not None and (grey.unit_height, grey.unit_width, grey.unit_rows, grey.units) == (8, 8, 10, 14)


def turned() -> bytes:
    exif = upright()
    exif[0x0112] = 6
    return saved(PICTURE, exif=exif)


def turned_by_a_block_cut_in_two() -> bytes:
    """The Exif block in two segments, the tag in the second."""
    data = turned()
    at = data.index(b"\xff\xe1")
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    block = data[at + 10 : at + 2 + length]
    parts = [b"\xff\xe1" + (len(part) + 8).to_bytes(2, "big") + b"Exif\0\0" + part for part in (block[:12], block[12:])]
    return data[:at] + b"".join(parts) + data[at + 2 + length :]


def two_pictures() -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, "MPO", save_all=True, append_images=[PICTURE.rotate(180)])
    return file.getvalue()


ODD = {
    "CMYK": lambda: saved(PICTURE.convert("CMYK")),
    "turned": turned,
    "turned by a block cut in two": turned_by_a_block_cut_in_two,
    "two pictures": two_pictures,
    "filled marker": lambda: b"\xff\xd8\xff" + sequential()["4:2:0"][2:],
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_left_to_pillow(name: str) -> None:
    data = ODD[name]()
    assert read_frame(data) is None and decode_jpeg(data) is None
    pixels = decode(data)
    if name.startswith("turned"):
        upright_pixels = np.rot90(by_pillow(saved(PICTURE)), -1)
        np.testing.assert_array_equal(pixels, upright_pixels)
    else:
        np.testing.assert_array_equal(pixels, by_pillow(data))


def test_pillows_limit_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH)
    assert decode(saved(PICTURE)).shape == (HEIGHT, WIDTH, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH // 2 - 1)
    with pytest.raises(Image.DecompressionBombError):
        decode(saved(PICTURE))


def cut_off(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: rng.integers(len(data))]


def flip(data: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(rng.integers(1, 4)):
        data[rng.integers(len(data))] = rng.integers(256)
    return data


def take_out(data: bytearray, rng: np.random.Generator) -> bytearray:
    start = int(rng.integers(len(data)))
    return data[:start] + data[start + int(rng.integers(1, 50)) :]


def put_in(data: bytearray, rng: np.random.Generator) -> bytearray:
    start = int(rng.integers(len(data)))
    return data[:start] + rng.bytes(int(rng.integers(1, 20))) + data[start:]


def outcome(decoder: Callable[[bytes], NDArray[np.uint8]], data: bytes) -> tuple[str, object]:
    try:
        pixels = decoder(data)
    except Exception as error:
        return type(error).__name__, str(error).split(" <_io.")[0]
    return str(pixels.shape), pixels.tobytes()


def pillow_alone(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.load()
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("damage", [cut_off, flip, take_out, put_in])
def test_damaged_jpegs_give_pillows_pixels_and_errors(
    damage: Callable[[bytearray, np.random.Generator], bytearray],
) -> None:
    rng = np.random.default_rng(5)
    errors = 0
    for name, data in ordinary().items():
        if name == "exif":  # which may come to say that the picture is turned
            continue
        for _ in range(25):
            damaged = bytes(damage(bytearray(data), rng))
            expected = outcome(pillow_alone, damaged)
            assert outcome(decode, damaged) == expected, name
            errors += not expected[0].startswith("(")
    assert errors > 10
