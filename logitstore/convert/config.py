"""What to convert, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from logitstore.errors import InputError
from logitstore.store.codecs.packed import MAX_BASE

CodecName = Literal["packed", "standard"]
BASE_EPOCHS = 4


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """What to convert. Every field is an option of ``logitstore convert``."""

    store: str
    """Path of the store; nothing in it is changed."""
    out: str
    """Where the other form of it lies or will lie."""
    codec: CodecName = "packed"
    """``packed`` for few bytes, or ``standard`` for what ``dump`` writes and any zarr reader decodes."""
    base_epochs: int | None = None
    """Complete epochs that serve as the model of a packed store; None is 4, or what a store at ``out`` has."""
    workers: int | None = None
    """Threads that convert, each a shard; None is one per core. Never changes a byte."""

    def __post_init__(self) -> None:
        if self.codec not in get_args(CodecName):
            raise InputError(f"--codec is packed or standard, got {self.codec}.")
        for name in ("base_epochs", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
        if self.base_epochs is not None and self.base_epochs > MAX_BASE:
            raise InputError(f"--base-epochs must be at most {MAX_BASE}, got {self.base_epochs}.")
        if self.base_epochs is not None and self.codec != "packed":
            raise InputError(f"--base-epochs means nothing with --codec {self.codec}: leave it out.")


@dataclass(frozen=True, kw_only=True)
class ConvertResult:
    """What a call of ``convert`` did, and what is there."""

    out: str
    """Path of the converted store."""
    store_id: str
    """Its id."""
    codec: str
    """Its codec."""
    complete: bool
    """Whether every complete epoch of the source is there."""
    epochs: int
    """Complete epochs that are there."""
    shards: int
    """Shards that this call converted."""
    records: int
    """Records in these."""
    records_per_second: float
    """Speed of this call; 0 where there was nothing left to do."""
    bytes_per_record_before: float
    """Bytes per record of the source, metadata included."""
    bytes_per_record_after: float
    """Bytes per record of the converted store, metadata included."""
    model_bytes: int | None
    """Memory that reading a packed store takes for what its base epochs tell."""
    model_bytes_per_sample: float | None
    """The same for each sample."""
    in_progress: tuple[str, ...] = ()
    """Shards that other processes are converting."""
    notes: tuple[str, ...] = ()
    """One sentence for each thing that is worth knowing."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self), "in_progress": list(self.in_progress), "notes": list(self.notes)}
