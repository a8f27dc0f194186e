"""The one entry of an Exif block that pixels depend on."""

from __future__ import annotations

EXIF_HEAD = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112


def orientation(exif: bytes | None) -> int:
    """The orientation (1 to 8) that an Exif block names; 1 where there is none or the block is damaged.

    Source: Exif 2.32, 4.6.2 (the block is a TIFF header with directories of 12-byte entries) and 4.6.4 A.
    """
    if not exif:
        return 1
    tiff = exif.removeprefix(EXIF_HEAD)
    endian: str = {b"II": "little", b"MM": "big"}.get(tiff[:2], "")
    if not endian:
        return 1

    def number(start: int, length: int) -> int:
        return int.from_bytes(tiff[start : start + length], endian)  # type: ignore[arg-type]

    directory = number(4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
        if number(entry, 2) == _ORIENTATION_TAG:
            return number(entry + 8, 2)
    return 1
