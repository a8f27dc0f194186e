"""Images that are asked for some of their rows, as a view asks for those of its crop."""

from __future__ import annotations

from collections.abc import Callable

from logitstore.images.jpeg import Encoded, Pixels, decode_rows, read_frame


class ImageSource:
    """A decoded image.

    Args:
        pixels_HWC: uint8 [H, W, 3].
    """

    def __init__(self, pixels_HWC: Pixels) -> None:
        self.height, self.width = pixels_HWC.shape[:2]
        self._pixels_HWC: Pixels | None = pixels_HWC

    def rows(self, top: int, bottom: int) -> Pixels:
        """Rows [top, bottom): uint8 [bottom - top, W, 3].

        Raises:
            DecodeError: the image does not decode; the message names it.
        """
        assert self._pixels_HWC is not None
        return self._pixels_HWC[top:bottom]


class EncodedSource(ImageSource):
    """An image that is decoded when it is asked for rows, and where its format allows no others.

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

    def rows(self, top: int, bottom: int) -> Pixels:
        if self._pixels_HWC is None:
            if bottom - top < self.height:
                some = decode_rows(self._data, top, bottom, frame=self._frame)
                if some is not None:
                    return some
            self._pixels_HWC = self._decoded()
        return super().rows(top, bottom)
