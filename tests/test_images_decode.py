"""Every kind of pixel becomes RGB by the stated rule; damaged files are found."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from logitstore.errors import DataError, DecodeError
from logitstore.images import open_images
from logitstore.images.decode import decode, ends_well
from tests.helpers import picture, write_images

RGB = picture(9, 14)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(values[:, :, None], 3, axis=2)


def png16(values: NDArray[np.uint16]) -> bytes:
    """A 16-bit PNG, grey [H, W] or RGB [H, W, 3]; Pillow writes only the former."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2 if values.ndim == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_rgb_is_kept(kind: str) -> None:
    pixels = decode(encoded(Image.fromarray(RGB), kind))
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and not pixels.flags.writeable
    assert np.array_equal(pixels, RGB)


def test_lossless_webp_is_kept() -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(RGB), "WEBP", lossless=True)), RGB)


def test_jpeg_equals_pillow() -> None:
    data = encoded(Image.fromarray(RGB), "JPEG", quality=90)
    assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_grey_is_repeated(kind: str) -> None:
    data = encoded(Image.fromarray(RGB[:, :, 0]), kind)
    assert np.array_equal(decode(data), grey(np.asarray(Image.open(io.BytesIO(data)))))


def test_one_bit_is_black_and_white() -> None:
    bits = RGB[:, :, 0] > 128
    assert np.array_equal(decode(encoded(Image.fromarray(bits), "PNG")), grey(np.where(bits, 255, 0).astype(np.uint8)))


def test_transparency_is_dropped() -> None:
    rgba = Image.fromarray(np.dstack([RGB, RGB[:, :, 0]]))
    assert np.array_equal(decode(encoded(rgba, "PNG")), RGB)
    la = Image.merge("LA", [Image.fromarray(RGB[:, :, 1]), Image.fromarray(RGB[:, :, 0])])
    assert np.array_equal(decode(encoded(la, "PNG")), grey(RGB[:, :, 1]))


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(16))], ids=["opaque", "one colour", "per colour"])
def test_palette_is_looked_up(transparency: object) -> None:
    image = Image.fromarray(RGB).quantize(16)
    options = {} if transparency is None else {"transparency": transparency}
    assert np.array_equal(decode(encoded(image, "PNG", **options)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_goes_through_pillow(kind: str) -> None:
    data = encoded(Image.fromarray(RGB).convert("CMYK"), kind)
    assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_grey_tiff_keeps_the_high_byte(order: str) -> None:
    values = (RGB[:, :, 0].astype(np.uint16) << 8) + 255
    mode = "I;16" if order == "<" else "I;16B"
    image = Image.frombytes(mode, values.shape[::-1], values.astype(f"{order}u2").tobytes())
    assert np.array_equal(decode(encoded(image, "TIFF")), grey(RGB[:, :, 0]))


def test_16_bit_png_keeps_the_high_byte() -> None:
    values = (RGB.astype(np.uint16) << 8) + 255
    assert np.array_equal(decode(png16(values)), RGB)
    assert np.array_equal(decode(png16(values[:, :, 2])), grey(RGB[:, :, 2]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"  # so that the tag is not the first
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(RGB), kind, exif=exif, **lossless)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode(data), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0XX"],
    ids=["empty", "directory outside", "entries outside", "no byte order"],
)
def test_damaged_exif_means_upright(exif: bytes) -> None:
    data = encoded(Image.fromarray(RGB), "JPEG", exif=exif, dpi=(72, 72))
    assert np.array_equal(decode(data), decode(encoded(Image.fromarray(RGB), "JPEG")))


def test_floating_point_does_not_decode(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(DecodeError, match=r"float\.tiff of .* does not decode \(floating-point"):
        open_images(str(tmp_path)).pixels(0)


def test_the_reason_is_pillows(tmp_path: Path) -> None:
    (tmp_path / "zeros.jpg").write_bytes(b"\xff\xd8\xff" + bytes(40) + b"\xff\xd9")
    with pytest.raises(DecodeError, match=r"zeros\.jpg of .* does not decode \(cannot identify image file\)"):
        open_images(str(tmp_path)).pixels(0)


def test_first_frame_counts() -> None:
    frames = [Image.fromarray(picture(6, 6, seed)).quantize(8) for seed in range(2)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.array_equal(decode(data), np.asarray(frames[0].convert("RGB")))


FORMATS = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF", ".ppm": "PPM"}


@pytest.mark.parametrize("suffix", FORMATS)
def test_check_finds_truncated_files(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path, [f"a{suffix}", f"b{suffix}"], size=(40, 50))
    images = open_images(str(tmp_path))
    assert images.check() == []
    path = tmp_path / f"b{suffix}"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=rf"1 of the 2 images .*: b\{suffix};"):
        open_images(str(tmp_path)).check()
    assert open_images(str(tmp_path)).check(skip_bad=True) == [f"b{suffix}"]


def damage_text(path: Path) -> None:
    path.write_text("<html>404 Not Found</html>")


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_delete(path: Path) -> None:
    path.unlink()


def damage_middle(path: Path) -> None:
    """Intact at both ends, so only decoding can tell."""
    data = path.read_bytes()
    path.write_bytes(data[:2] + bytes(len(data) - 4) + data[-2:])


@pytest.mark.parametrize("damage", [damage_text, damage_empty, damage_delete, damage_middle])
def test_what_does_not_decode_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    images = open_images(str(tmp_path))
    damage(tmp_path / "b.jpg")
    assert images.pixels(0).shape == (12, 16, 3)
    with pytest.raises(DecodeError, match=r"^b\.jpg of ") as raised:
        images.pixels(1)
    assert "0x" not in str(raised.value)
    assert images.check(skip_bad=True) == ["b.jpg"]


def test_check_names_the_first_few(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{i}.jpg" for i in range(12)])
    for i in range(2, 10):
        damage_empty(tmp_path / f"{i}.jpg")
    with pytest.raises(DataError, match=r"8 of the 12 .*: 2.jpg, 3.jpg, 4.jpg, 5.jpg, 6.jpg and 3 more;"):
        open_images(str(tmp_path)).check()


def test_check_reports_progress(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{i}.png" for i in range(300)], size=(2, 2))
    seen: list[tuple[int, int]] = []
    open_images(str(tmp_path)).check(lambda done, total: seen.append((done, total)))
    assert seen == [(256, 300), (300, 300)]


def test_bytes_after_the_end_of_a_jpeg_are_no_damage(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg"])
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data + b"trailer of a phone")
    assert not ends_well(data[:16], b"trailer of a phone", len(data))
    assert open_images(str(tmp_path)).check() == []


def test_a_png_called_jpeg_is_no_damage(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.png"])
    (tmp_path / "a.png").rename(tmp_path / "a.JPEG")
    images = open_images(str(tmp_path))
    assert images.check() == [] and images.pixels(0).shape == (12, 16, 3)
