"""The golden chunks of tests/golden: records, and what they are coded as, by form of values.

python -m tests.golden_packed    rewrites all; only for a new version of the codec
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.store.blocks import Block
from logitstore.store.packed import Base, RecordShape, encode_chunk
from logitstore.store.values import FORMS, Values
from tests.packed_cases import CHECKSUM, Case, cut

FOLDER = Path(__file__).parent / "golden"
EPOCHS = 3
"""Two base epochs, cut into chunks, and one that is coded with none, one and both of them."""
CHUNK = 64
_ARRAYS = ("seed", "index", "logp", "tail", "logz")


def shape(values: Values) -> RecordShape:
    """Of the golden records."""
    logz, floor = values in ("q4", "f16"), 0.0 if values == "f16" else 1e-3
    return RecordShape(topk=8, num_classes=40, values=values, floor=floor, logz=logz)


def path(values: Values) -> Path:
    """Of the file of a form."""
    return FOLDER / f"packed_v1_{values}.npz"


def base_of(values: Values, samples: list[NDArray[np.int64]], blocks: list[Block]) -> Base:
    """Learnt from all epochs but the last one."""
    base = Base(shape(values), len(samples[0]))
    for sample_P, block in zip(samples[:-1], blocks[:-1], strict=True):
        base.add((sample_P[i : i + CHUNK], cut(block, i, i + CHUNK)) for i in range(0, len(sample_P), CHUNK))
    return base


def coded(base: Base, sample_P: NDArray[np.int64], block: Block) -> list[bytes]:
    """A chunk by the number of base epochs that it is coded with."""
    return [
        encode_chunk(block, sample_P, block.seed, base.upto(level), checksum=CHECKSUM + level)
        for level in range(base.level + 1)
    ]


def load(values: Values) -> tuple[list[NDArray[np.int64]], list[Block], list[bytes]]:
    """Samples and records of each epoch, and the last one's chunks."""
    with np.load(path(values)) as file:
        samples = list(file["sample"].astype(np.int64))
        blocks = [
            Block(**{name: file[name][epoch] for name in _ARRAYS if name in file.files}) for epoch in range(EPOCHS)
        ]
        chunks = [file[f"chunk_{level}"].tobytes() for level in range(EPOCHS)]
    return samples, blocks, chunks


def main() -> None:
    for values in FORMS:
        case = Case(shape=shape(values), num_samples=120, seed=1)
        samples = [case.samples(epoch) for epoch in range(EPOCHS)]
        blocks = [case.block(epoch) for epoch in range(EPOCHS)]
        arrays: dict[str, NDArray[Any]] = {"sample": np.stack(samples).astype(np.uint8)}
        for name in _ARRAYS:
            if getattr(blocks[0], name) is not None:
                arrays[name] = np.stack([getattr(block, name) for block in blocks])
        for level, data in enumerate(coded(base_of(values, samples, blocks), samples[-1], blocks[-1])):
            arrays[f"chunk_{level}"] = np.frombuffer(data, np.uint8)
        np.savez_compressed(path(values), **arrays)
        print(f"{path(values)}: {path(values).stat().st_size} bytes")


if __name__ == "__main__":
    main()
