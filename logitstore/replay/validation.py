"""Images to validate on, one at a time, for data loaders of other libraries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from logitstore.errors import DataError
from logitstore.images import ImageSet
from logitstore.views import centre_view


class ValidationViews(Dataset[dict[str, Tensor]]):
    """Labelled images as a data set of torch with random access.

    An item is a dict of ``views``, the centre view of one image, uint8 [3, H, W], and ``labels``, its class, int64. Any
    ``DataLoader`` may take them, with any sampler and any number of workers.

    Args:
        images: what to validate on, such as ``TrainBatches.validation``.
        size: height and width of the views in pixels.
        crop_pct: share of the resized short side that is kept, as the model's preprocessing has it.

    Raises:
        DataError: there are no images, or they have no labels.
    """

    def __init__(self, images: ImageSet | None, *, size: int, crop_pct: float) -> None:
        if images is None:
            raise DataError("There is nothing to validate on: name a data set that has labels as val_data.")
        self._images, self._labels = images, images.require_labels("to validate on")
        self._size, self._crop_pct = size, crop_pct

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        if not 0 <= number < len(self):
            raise IndexError(number)
        view = centre_view(self._images.pixels(number), self._size, self._crop_pct)
        return {"views": torch.from_numpy(view), "labels": torch.tensor(int(self._labels[number]))}
