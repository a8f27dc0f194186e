"""Small things that many tests need: pictures, image files, a data set in memory."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from logitstore.errors import DecodeError
from logitstore.images import ImageSet


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture uint8 [height, width, 3] with smooth colours and some texture; the same for the same arguments."""
    y, x = np.mgrid[0:height, 0:width]
    rng = np.random.default_rng(seed)
    waves = [rng.uniform(0.5, 4, 3) for _ in range(3)]
    channels = [np.sin(a * y / height * 6 + b * x / width * 6 + 6 * c) for a, b, c in waves]
    noisy = 128 + 100 * np.stack(channels, axis=2) + rng.normal(0, 12, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def worker(script: Path, *arguments: object) -> dict[str, Any]:
    """The last line of JSON of a script that runs in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BLOSC_NTHREADS": "1"}
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)], capture_output=True, text=True, timeout=500, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def write_images(folder: Path, names: Iterable[str], size: tuple[int, int] = (12, 16)) -> None:
    """A picture (height, width) of its own under each name, in the format that the suffix says."""
    for seed, name in enumerate(sorted(names)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(*size, seed)).save(path)


class MemoryImages(ImageSet):
    """Pictures of different sizes in memory; samples in ``bad`` do not decode."""

    def __init__(
        self, count: int, *, bad: Iterable[int] = (), labels: Sequence[int] | None = None, side: int = 24
    ) -> None:
        super().__init__(name="memory", split="train", num_samples=count, labels=labels, default_size=side)
        self.bad = frozenset(bad)
        self._pictures = [picture(side + i % 5, side + i % 7, i) for i in range(count)]
        for image in self._pictures:
            image.flags.writeable = False

    def image_name(self, i: int) -> str:
        return f"picture-{i}"

    def pixels(self, i: int) -> NDArray[np.uint8]:
        if i in self.bad:
            raise DecodeError(f"{self.image_name(i)} does not decode.")
        return self._pictures[i]

    def _fingerprint(self) -> str:
        return hashlib.sha256(b"".join(image.tobytes() for image in self._pictures)).hexdigest()


def printed_without_jit(script: str) -> Any:
    """What a script prints as JSON where kernels run as plain Python."""
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-W", "error::RuntimeWarning", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout)


@contextmanager
def small_disk(file_bytes: int) -> Iterator[None]:
    """Files of this process end after so many bytes, as they do where a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
