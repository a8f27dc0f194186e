"""The work of a thread: a few rows of a batch, from encoded images to mixed views."""

from __future__ import annotations

import numpy as np

from logitstore.errors import DecodeError, LogitStoreError, ViewError
from logitstore.images import ImageSet
from logitstore.loader.batch import WITNESS_STEP
from logitstore.loader.work import Work
from logitstore.views import Renderer, witness


class Painter:
    """Makes views straight into the memory of their batch. Holds no state, so that threads may share one.

    Args:
        images: the data set.
        renderer: makes one view; its spec says how neighbours are mixed.
        skip_bad: an image that does not decode becomes a view of the fill colour with weight 0, and where the spec
            mixes its neighbour has weight 0 too; otherwise it raises, unless its weight is 0 already.
        witnesses: compute the checksums of the views that have a witness.
    """

    def __init__(self, images: ImageSet, renderer: Renderer, *, skip_bad: bool, witnesses: bool) -> None:
        self._images, self._renderer, self._skip_bad = images, renderer, skip_bad
        self.witnesses = witnesses

    def paint(self, work: Work, low: int, high: int) -> None:
        """Make the views of rows ``low`` to ``high``, whole pairs; touches no other rows."""
        mixes = self._renderer.spec.mixes
        for row in range(low, high):
            try:
                self._paint_row(work, row)
            except DecodeError:
                if not self._skip_bad and work.weight_E[row] != 0.0:  # where the dump skipped it, so may we
                    raise
                work.views_ECHW[row] = np.array(self._renderer.spec.fill, np.uint8)[:, None, None]
                work.bad[row] = self._images.image_name(int(work.sample_E[row]))
                pair = row - row % 2
                work.weight_E[slice(pair, pair + 2) if mixes else row] = 0.0
        if mixes:
            work.own_E[low:high] = self._renderer.mix(work.views_ECHW[low:high], work.seed_E[low:high]).own_B
        if self.witnesses:
            for row in (low + np.flatnonzero(work.position_E[low:high] % WITNESS_STEP == 0)).tolist():
                work.witness_E[row] = witness(work.views_ECHW[row])

    def _paint_row(self, work: Work, row: int) -> None:
        sample = int(work.sample_E[row])
        try:
            self._renderer.render_source(self._images.source(sample), int(work.seed_E[row]), work.views_ECHW[row])
        except ViewError as error:
            raise ViewError(f"No view of {self._images.image_name(sample)} could be made: {error}") from error
        except LogitStoreError:
            raise
        except Exception as error:
            # A thread's traceback alone would not say which of a million images it was.
            error.add_note(f"while making the view of {self._images.image_name(sample)}, seed {work.seed_E[row]}")
            raise
