"""Views of sources that decode in part: the same pixels as views of whole images, from no more rows than needed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from logitstore.errors import ViewError
from logitstore.views import Renderer, ViewSpec, view_spec
from tests.view_cases import IMAGE_NAMES, decoded, recipes


class Windows:
    """A source that notes what it is asked for, and gives a little more than that."""

    def __init__(self, pixels_HWC: NDArray[np.uint8], *, misplaced: int = 0) -> None:
        self.height, self.width = pixels_HWC.shape[:2]
        self.asked: list[tuple[int, int, int, int]] = []
        self._pixels_HWC, self._misplaced = pixels_HWC, misplaced

    def window(self, left: int, top: int, width: int, height: int) -> tuple[NDArray[np.uint8], int, int]:
        self.asked.append((left, top, width, height))
        x0, y0 = min(left, 3), min(top, 2)
        part = self._pixels_HWC[top - y0 : top + height, left - x0 : left + width + 1]
        return np.ascontiguousarray(part), x0 + self._misplaced, y0


@pytest.mark.parametrize("name", recipes(40))
def test_views_of_sources_are_views_of_images(name: str) -> None:
    renderer = Renderer(recipes(40)[name])
    out = np.empty((3, 40, 40), np.uint8)
    for seed in range(30):
        pixels = decoded(IMAGE_NAMES[seed % 6])
        source = Windows(pixels)
        renderer.render_source(source, seed, out)
        np.testing.assert_array_equal(out, renderer.render(pixels, seed))
        assert source.asked == [renderer.params(source.height, source.width, seed).crop]


def test_a_users_transform_is_handed_all_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tests.view_cases.top_left", lambda pixels, rng: pixels[:4, :4].transpose(2, 0, 1), raising=False
    )
    spec = view_spec("tests.view_cases:top_left", size=4)
    source, out = Windows(decoded("photo.jpg")), np.empty((3, 4, 4), np.uint8)
    Renderer(spec).render_source(source, 5, out)
    assert source.asked == [(0, 0, source.width, source.height)]
    np.testing.assert_array_equal(out, decoded("photo.jpg")[:4, :4].transpose(2, 0, 1))


def test_sources_that_give_other_pixels_are_refused() -> None:
    renderer, out = Renderer(ViewSpec(size=8)), np.empty((3, 8, 8), np.uint8)
    with pytest.raises(ViewError, match="was asked for"):
        renderer.render_source(Windows(decoded("photo.jpg"), misplaced=2), 0, out)
    with pytest.raises(ViewError, match=r"C-contiguous uint8 \[3, 8, 8\]"):
        renderer.render_source(Windows(decoded("photo.jpg")), 0, np.empty((3, 9, 9), np.uint8))
