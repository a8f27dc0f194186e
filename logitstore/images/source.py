"""Images that are asked for a part of them, as a view asks for that of its crop."""

from __future__ import annotations

from collections.abc import Callable

from logitstore.images.jpeg import Encoded, Pixels, read_frame
from logitstore.images.window import decode_window


class ImageSource:
    """A decoded image.

    Args:
        pixels_HWC: uint8 [H, W, 3].
    """

    def __init__(self, pixels_HWC: Pixels) -> None:
        self.height, self.width = pixels_HWC.shape[:2]
        self._pixels_HWC: Pixels | None = pixels_HWC

    def window(self, left: int, top: int, width: int, height: int) -> tuple[Pixels, int, int]:
        """A part of the image that holds a box, and where the box is in it.

        Args:
            left, top, width, height: the box, inside the image, in pixels.

        Returns:
            Pixels: uint8 [h, w, 3], C-contiguous, perhaps read-only, at least as large as the box; and the box's left
            and top in them.

        Raises:
            DecodeError: the image does not decode; the message names it.
        """
        assert self._pixels_HWC is not None
        return self._pixels_HWC, left, top


class EncodedSource(ImageSource):
    """An image that is decoded when it is asked for, and only what its format does not allow to leave out.

    Args:
        data: the image's file.
        decoded: gives all of its pixels, or raises ``DecodeError``.
    """

    def __init__(self, data: Encoded, decoded: Callable[[], Pixels]) -> None:
        self._data, self._decoded = data, decoded
        self._frame = read_frame(data)
        if self._frame is None:
            super().__init__(decoded())
        else:
            self.height, self.width, self._pixels_HWC = self._frame.height, self._frame.width, None

    def window(self, left: int, top: int, width: int, height: int) -> tuple[Pixels, int, int]:
        if self._pixels_HWC is None:
            assert self._frame is not None
            if width * height < self.width * self.height:
                part = decode_window(self._data, self._frame, left, top, width, height)
                if part is not None:
                    return part
            self._pixels_HWC = self._decoded()
        return super().window(left, top, width, height)
