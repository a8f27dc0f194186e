"""How fast models are: the forward pass in eval mode, without loading or normalising images."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

from logitstore.device import autocast

_WARM_UP, _LEAST_REPEATS, _LEAST_SECONDS = 2, 3, 2.0
_LEAST_PAIRS, _SECONDS_OF_PAIRS = 9, 2.0
MEASURED_BATCH = {"cpu": 8, "cuda": 256}
"""Images in a timed pass, by type of device, where nothing else is asked for."""


class TimedModel:
    """A model on its device, with a batch to look at.

    Args:
        model: is moved to the device, and into eval mode.
        size: side of the images in pixels.
        batch_size: images in a pass.
        device: where to run.
        dtype: autocast type.

    Two passes that do not count warm it up.
    """

    def __init__(
        self, model: nn.Module, *, size: int, batch_size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        memory_format = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        self.model = model.eval().to(device, memory_format=memory_format)  # type: ignore[call-overload]
        generator = torch.Generator().manual_seed(0)
        images_BCHW = torch.randn(batch_size, 3, size, size, generator=generator)
        self.images_BCHW = images_BCHW.to(device).contiguous(memory_format=memory_format)
        self.batch_size, self.device, self.dtype = batch_size, device, dtype
        for _ in range(_WARM_UP):
            self.seconds()

    def seconds(self) -> float:
        """Time of one pass; on a GPU until its results are there."""
        with torch.inference_mode(), autocast(self.device, self.dtype):
            began = time.perf_counter()
            self.model(self.images_BCHW)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            return time.perf_counter() - began

    def images_per_second(self) -> float:
        """Its speed: the median of at least three passes, of as many as fit into two seconds."""
        seconds: list[float] = []
        while len(seconds) < _LEAST_REPEATS or sum(seconds) < _LEAST_SECONDS:
            seconds.append(self.seconds())
        return self.batch_size / statistics.median(seconds)


def images_per_second(
    model: nn.Module, *, size: int, batch_size: int, device: torch.device, dtype: torch.dtype
) -> float:
    """Speed of a model; see ``TimedModel``, which takes the same."""
    return TimedModel(model, size=size, batch_size=batch_size, device=device, dtype=dtype).images_per_second()


def relative_speed(model: TimedModel, reference: TimedModel) -> float:
    """How many times as fast a model is as another one.

    Both take turns, so that whatever else the machine does slows both: the median over pairs of passes, at least nine,
    and as many as fit into two seconds.
    """
    began = time.perf_counter()
    ratios: list[float] = []
    while len(ratios) < _LEAST_PAIRS or time.perf_counter() - began < _SECONDS_OF_PAIRS:
        first, second = (model, reference) if len(ratios) % 2 == 0 else (reference, model)
        seconds = {id(first): first.seconds(), id(second): second.seconds()}
        ratios.append(seconds[id(reference)] / seconds[id(model)])
    return statistics.median(ratios)


def device_name(device: torch.device) -> str:
    """What a speed was measured on: the GPU's name, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
