"""What a contraction is asked to do."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass, fields, replace

from logitstore.errors import InputError
from logitstore.train import TrainConfig
from students.contract import Bounds, Factors

_FOR_TRAINING = (
    "store", "weights", "data", "val_data", "subset", "topk", "view", "size", "shuffle", "recipe", "epochs", "base_lr",
    "drop_path", "seed", "accumulate", "skip_bad", "exclude", "batch_size", "workers", "device", "dtype",
)  # fmt: skip


_NOT_IN_EARNEST = ("epochs", "workers", "device", "dtype")  # short for candidates; or the machine's


@dataclass(frozen=True, kw_only=True)
class ContractConfig:
    """What to contract, and to what. Every field is an option of ``logitstore contract``; ``start`` is ``--from``."""

    start: str = "tinyvit_21m"
    """The TinyViT to contract, by a short or timm name."""
    max_params: int | None = None
    """The most parameters of the result, classifier included."""
    min_throughput: str | None = None
    """The fewest images a second of its forward pass: a number, or times the start's, as in ``1.5x``. Times are taken
    on this machine, in turns with the start."""
    steps: int = 4
    """Steps in which the bounds tighten, geometrically."""
    candidates: int = 6
    """Candidates to train in each step."""
    store: str | tuple[str, ...] | None = None
    """What candidates learn from; see ``TrainConfig``, as for all that follow up to ``dtype``."""
    weights: tuple[float, ...] | None = None
    """See ``TrainConfig``."""
    data: str = "digits"
    """The data set that the store was made of."""
    val_data: str | None = None
    """What candidates are compared on; None is the ``val`` split of ``data``."""
    subset: int | None = None
    """See ``TrainConfig``."""
    topk: int | None = None
    """See ``TrainConfig``."""
    view: str | None = None
    """See ``TrainConfig``."""
    size: int | None = None
    """See ``TrainConfig``; also the size that speeds are taken at."""
    shuffle: str | None = None
    """See ``TrainConfig``."""
    recipe: str | None = None
    """Of each candidate's training."""
    epochs: int = 2
    """Passes over the data of each candidate's training."""
    base_lr: float | None = None
    """See ``TrainConfig``."""
    drop_path: float | None = None
    """Of all candidates; None is the recipe's for the start."""
    seed: int = 0
    """Which candidates are drawn, and the seed of each one's training."""
    accumulate: int = 1
    """See ``TrainConfig``."""
    skip_bad: bool = False
    """See ``TrainConfig``."""
    exclude: str | None = None
    """See ``TrainConfig``."""
    batch_size: int | None = None
    """Images per optimiser step."""
    workers: int | None = None
    """See ``TrainConfig``."""
    device: str = "auto"
    """Where candidates are trained and timed."""
    dtype: str = "auto"
    """Autocast type of training and timing."""
    out: str | None = None
    """The folder of the search; None is ``runs/contract/<start>-<data>``."""
    picture: str | None = None
    """Picture to draw: accuracy against parameters and against speed."""

    def __post_init__(self) -> None:
        for name in ("steps", "candidates", "epochs"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be at least 1, got {getattr(self, name)}.")
        if self.max_params is None and self.min_throughput is None:
            raise InputError("A contraction needs a bound: give --max-params, --min-throughput, or both.")
        if self.max_params is not None and self.max_params < 1:
            raise InputError(f"--max-params must be at least 1, got {self.max_params}.")
        self.target(1.0)
        self.training()

    def target(self, throughput: float) -> Bounds:
        """The bounds of the last step.

        Args:
            throughput: images a second of the model that is contracted.

        Raises:
            InputError: ``min_throughput`` is no number.
        """
        parameters = self.max_params or math.inf
        if self.min_throughput is None:
            return Bounds(parameters=parameters)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(x?)", self.min_throughput)
        if match is None or float(match[1]) == 0:
            raise InputError(
                f"--min-throughput must be images a second, as in 2000, or times the start's, as in 1.5x; got "
                f"{self.min_throughput}."
            )
        return Bounds(parameters=parameters, throughput=float(match[1]) * (throughput if match[2] else 1.0))

    def training(self) -> TrainConfig:
        """How the model that is contracted would be trained.

        Raises:
            InputError: an option of training that cannot be used.
        """
        options = {name: getattr(self, name) for name in _FOR_TRAINING}
        return TrainConfig(student=self.start, tensorboard=False, **options)

    def training_of(self, factors: Factors, out: str) -> TrainConfig:
        """How a candidate is trained.

        Args:
            factors: what it is made of.
            out: the folder of its run.
        """
        return replace(self.training(), student_args=factors.student_args(), out=out)

    def train_command(self, factors: Factors, out: str) -> str:
        """What trains a candidate in earnest: as it was trained here, for the epochs of the recipe.

        Args:
            factors: what it is made of.
            out: the folder of its run.
        """
        words = ["logitstore", "train", "--student", self.start, "--data", self.data]
        for argument in factors.student_args():
            words += ["--student-arg", argument]
        defaults = {field.name: field.default for field in fields(self)}
        for name in _FOR_TRAINING:
            value = getattr(self, name)
            if name in ("data", *_NOT_IN_EARNEST) or value == defaults[name]:
                continue
            option = f"--{name.replace('_', '-')}"
            if name == "store":
                words += [word for store in ([value] if isinstance(value, str) else value) for word in (option, store)]
            elif name == "weights":
                words += [option, ",".join(map(str, value))]
            else:
                words += [option] if value is True else [option, str(value)]
        return shlex.join([*words, "--out", out])
