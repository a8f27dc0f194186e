"""What to pack, and how; and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from logitstore.errors import InputError


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """What to pack, and how. Every field is an option of ``logitstore pack``."""

    out: str
    """The folder of the packed images; more splits may be packed into it later."""
    data: str
    """The data set, as ``open_images`` takes it, or a stream of timm: ``hfids/NAME``, ``tfds/NAME``, ``wds/NAME``."""
    split: str | None = None
    """The split to pack, as ``train``, or ``val=validation`` where the data set calls it otherwise. None packs the
    train split, and the val split where there is one."""
    short_side: int = 256
    """Images with a longer short side are scaled down to this, in pixels; others keep their size."""
    quality: int = 90
    """Quality of the JPEGs, 1 to 100."""
    shard_mib: int = 256
    """Size of a shard in MiB. Decides no pixel and no fingerprint."""
    subset: int | None = None
    """Use only this many samples, evenly spaced; of a stream the first ones."""
    skip_bad: bool = False
    """Leave out images that do not decode, instead of stopping."""
    workers: int | None = None
    """Threads that decode, scale and encode; None is one per core. Never changes a byte."""

    def __post_init__(self) -> None:
        for name in ("short_side", "shard_mib", "subset", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
        if not 1 <= self.quality <= 100:
            raise InputError(f"--quality must lie in [1, 100], got {self.quality}.")
        for name in (self.split or "train").split("=", 1):
            if not name or name.startswith("."):
                raise InputError(f"--split is a name, or NAME=ITS-OTHER-NAME as in val=validation, got {self.split}.")
        if "/" in self.wanted_split:
            raise InputError(f"--split names a folder in --out, got {self.split}: write as train={self.split}.")

    @property
    def wanted_split(self) -> str:
        """The split that must be there."""
        return (self.split or "train").partition("=")[0]

    @property
    def source_split(self) -> str:
        """What the data set calls it."""
        name, _, other = (self.split or "train").partition("=")
        return other or name


@dataclass(frozen=True, kw_only=True)
class SplitResult:
    """One split of packed images."""

    split: str
    """Its name."""
    images: int
    """Images that it holds."""
    left_out: int
    """Images of the data set that did not decode."""
    shards: int
    """Its shards."""
    bytes: int
    """Size of its images."""
    made: int
    """Images that this call packed; the others were there."""
    fingerprint: str
    """What stores that are dumped from it record."""


@dataclass(frozen=True, kw_only=True)
class PackResult:
    """What a call of ``pack`` did, and what is there."""

    out: str
    """The folder, for ``--data``."""
    images: int
    """Images in the splits of this call."""
    bytes_per_image: float
    """Mean size of these."""
    images_per_second: float
    """Images packed per second by this call; 0 where there was nothing left to do."""
    splits: tuple[SplitResult, ...]
    """The splits of this call."""
    notes: tuple[str, ...] = ()
    """One sentence for each thing that is worth knowing."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self), "splits": [asdict(split) for split in self.splits], "notes": list(self.notes)}
