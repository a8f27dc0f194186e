"""Memory of batches: used again when it is free, never before, and no more of it kept than asked for."""

from __future__ import annotations

import tracemalloc

import numpy as np
import torch
from numpy.typing import NDArray

from logitstore.images import ImageSet
from logitstore.loader import ViewLoader
from logitstore.loader.memory import BatchMemory
from tests.helpers import MemoryImages
from tests.loader_stores import FULL, PLAIN, SIZE

ROW = 3 * SIZE * SIZE


def address(array: NDArray[np.uint8]) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_comes_back_with_the_last_look_at_it() -> None:
    memory = BatchMemory(nbytes=100 * ROW, kept=2)
    views = memory.take(100, 3, SIZE, SIZE)
    assert views.shape == (100, 3, SIZE, SIZE) and views.flags.c_contiguous and views.flags.writeable
    home = address(views)
    tensor = torch.from_numpy(views[3:7])[1:]
    del views
    other = memory.take(100, 3, SIZE, SIZE)
    assert address(other) != home  # a tensor of a slice still looks at it
    del tensor
    assert address(memory.take(5, 3, SIZE, SIZE)) == home  # and a smaller one has it next


def test_no_more_is_kept_than_asked() -> None:
    memory = BatchMemory(nbytes=1000, kept=2)
    pieces = [memory.take(1000) for _ in range(5)] + [memory.take(5000)]
    assert len({address(piece) for piece in pieces}) == 6 and len(pieces[-1]) == 5000
    pieces.clear()
    assert len(memory._free) == 2 and {len(piece) for piece in memory._free} == {1000}
    memory.clear()
    assert not memory._free
    assert memory.take(0, 3).size == 0


def test_an_epoch_needs_few_pieces_and_held_batches_stay_as_they_were() -> None:
    images = MemoryImages(640, side=SIZE)
    with ViewLoader(images, PLAIN, run_seed=1, batch_size=32, workers=2) as loader:
        homes = {address(batch.views_BCHW) for epoch in range(2) for batch in loader.batches(epoch)}
        assert len(homes) <= 8  # of 40 batches
    with ViewLoader(images, FULL, run_seed=1, batch_size=32, workers=2) as loader:
        held = list(loader.batches(0))
        before = [batch.views_BCHW.tobytes() for batch in held]
        for _ in loader.batches(1):
            pass
        assert [batch.views_BCHW.tobytes() for batch in held] == before


class GreyImages(ImageSet):
    """Any number of images that take no memory."""

    def __init__(self, count: int) -> None:
        super().__init__(name="grey", split="train", num_samples=count)

    def image_name(self, i: int) -> str:
        return f"grey-{i}"

    def pixels(self, i: int) -> NDArray[np.uint8]:
        return np.full((40, 50, 3), i % 251, np.uint8)

    def _fingerprint(self) -> str:
        return "grey"


def test_memory_does_not_grow_with_the_data_set() -> None:
    def peak(count: int) -> int:
        exclude = np.arange(0, count, count // 100)
        tracemalloc.start()
        try:
            with ViewLoader(GreyImages(count), FULL, run_seed=1, batch_size=64, workers=2, exclude=exclude) as loader:
                assert sum(len(batch) for batch in loader.batches(0, 0, 64 * 8)) == 64 * 8
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1000)  # compiles kernels and loads tables
    assert peak(100_000_000) < peak(1000) + (1 << 19)  # one bit a sample would be 12 MiB
