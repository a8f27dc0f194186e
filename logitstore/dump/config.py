"""What a dump is asked to do, and what it gives back."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from logitstore.dump.share import Share
from logitstore.errors import InputError
from logitstore.inference import InferenceConfig, require_power_of_two
from logitstore.store.manifest import NO_MASS_CUT
from logitstore.store.values import FORMS, Values

DIGITS_EPOCHS, DEFAULT_FLOOR = 4, 1e-3


@dataclass(frozen=True, kw_only=True)
class DumpConfig(InferenceConfig):
    """What to dump, and how. Every field is an option of ``logitstore dump``."""

    topk: int = 100
    """Most classes kept per view; clamped to the class count."""
    store: str | None = None
    """Where the store lies or will lie; None is ``runs/dump/<teacher>-<data>``."""
    views_from: str | None = None
    """A store whose views this teacher shall see, too: its order, seeds, view spec and size; see ``dump.shown``."""
    epochs: int | None = None
    """Epochs that the store holds; may grow later. None is those of ``views_from``, else 4 on digits and refused
    elsewhere."""
    floor: float | None = None
    """Classes less probable than this are not kept, but for the first; 0 keeps all. None is 0.001, or 0 with ``gain``
    or ``target_kl``."""
    mass: float = NO_MASS_CUT
    """Only the fewest classes that hold this probability together are kept; 1 keeps all."""
    gain: float = 0.0
    """Classes are kept only while each lowers the divergence from the teacher by so many nat; 0 keeps all."""
    target_kl: float | None = None
    """Find the largest gain at which records diverge from the teacher by so many nat in the mean, on a sample of
    views; where the store exists, its own floor, mass and gain count."""
    values: Values = "q8"
    """How log-probabilities are stored: ``q8``, ``q4``, ``q2`` (steps of 1/8, 1/4, 1/2 nat) or ``f16``."""
    logz: bool = False
    """Also keep the log-sum-exp of the logits, so that logits come back."""
    size: int | None = None
    """Side of the views in pixels; None is that of ``views_from``, else the data set's: 32 on digits, else 224."""
    view: str | None = None
    """``tinyvit``, ``crop_flip``, a YAML file of view-spec fields, or ``module:function``; None is that of
    ``views_from``, else ``tinyvit``."""
    seed: int | None = None
    """Run seed: with epoch and sample it decides order and views; None is that of ``views_from``, else 0."""
    start_epoch: int = 0
    """First epoch to make; earlier ones can be made by another run."""
    shard_size: int | None = None
    """Positions per shard, a power of two and a multiple of 64; None chooses by size."""
    shards: str | None = None
    """``i/n``: make only shards whose number, counted over all epochs, is i modulo n; None makes all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.topk < 1:
            raise InputError(f"--topk must be at least 1, got {self.topk}.")
        if self.floor is not None and not 0 <= self.floor < 1:
            raise InputError(f"--floor is a probability in [0, 1), got {self.floor}.")
        if not 0 < self.mass <= 1:
            raise InputError(f"--mass is a probability in (0, 1], got {self.mass}.")
        if not 0 <= self.gain < math.inf:
            raise InputError(f"--gain is a divergence in nat of at least 0, got {self.gain}.")
        if self.target_kl is not None and not 0 < self.target_kl < math.inf:
            raise InputError(f"--target-kl is a divergence in nat above 0, got {self.target_kl}.")
        if self.values not in FORMS:
            raise InputError(f"--values must be one of {', '.join(FORMS)}, got {self.values}.")
        if self.views_from is None:
            if self.epochs is None and self.data != "digits":
                raise InputError(
                    "--epochs is required for this data set: give the number of epochs the store shall hold."
                )
            self.check_start(DIGITS_EPOCHS if self.epochs is None else self.epochs)
        require_power_of_two("--shard-size", self.shard_size)
        Share.parse(self.shards)
        if self.batch_size and self.shard_size and self.batch_size > self.shard_size:
            raise InputError(f"--batch-size {self.batch_size} is above --shard-size {self.shard_size}; lower it.")

    @property
    def named_cuts(self) -> dict[str, float]:
        """Of floor, mass and gain, those that say something."""
        silent = {"floor": None, "mass": NO_MASS_CUT, "gain": 0.0}
        return {name: getattr(self, name) for name, nothing in silent.items() if getattr(self, name) != nothing}

    def check_start(self, num_epochs: int) -> None:
        """Refuse a first epoch that a store of so many has no room for.

        Raises:
            InputError: with both numbers.
        """
        if not 0 <= self.start_epoch < num_epochs:
            raise InputError(f"--start-epoch must lie in [0, {num_epochs}), got {self.start_epoch}.")


@dataclass(frozen=True, kw_only=True)
class DumpResult:
    """What a call of ``dump`` did, and what is left."""

    store: str
    """Path of the store."""
    complete: bool
    """Whether every shard of the requested epochs is committed, those of other parts (``shards``) included."""
    shards: int
    """Shards that this call made; in the main process of several, all that were made meanwhile."""
    records: int
    """Records in them."""
    skipped: int
    """Records in them that are empty because an image did not decode."""
    images_per_second: float
    """Records made per second, from the first view to the last commit."""
    bytes_per_record: float | None
    """Of the whole store, everything included; None for an empty store."""
    in_progress: tuple[str, ...] = ()
    """Shards that other processes are making, each with its holder."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self), "in_progress": list(self.in_progress)}
