"""What a training run is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, fields
from os import PathLike, fspath
from typing import Any, get_type_hints

from logitstore.errors import InputError
from logitstore.online.options import OnlineOptions, read_online
from logitstore.store.ensemble import normalised
from logitstore.train.architecture import read_architecture
from logitstore.train.repeating import ONLINE, STORE_FLAGS, TEACHER_LOSS, repeated_options
from students.names import Argument
from students.recipes import Recipe, select_recipe

_RECIPE_FIELDS = (
    "epochs",
    "warmup_epochs",
    "batch_size",
    "base_lr",
    "base_min_lr",
    "base_warmup_lr",
    "weight_decay",
    "clip_grad",
    "label_smoothing",
    "layer_decay",
    "bn_eval",
    "ema_decay",
    "mixup",
    "cutmix",
    "betas",
    "eps",
    *TEACHER_LOSS,
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What to train, and how. Every field is an option of ``logitstore train``."""

    student: str = "tinyvit_21m"
    """A name as ``students.create_student`` takes it."""
    student_args: tuple[str, ...] | None = None
    """Arguments of its architecture, each ``name=value`` as ``students.parse_arguments`` takes it."""
    share: int | str | None = None
    """How many consecutive blocks of a MiniViT share their weights, or ``all`` of a stage; None is the model's own."""
    store: str | tuple[str, ...] | None = None
    """Where the store lies; several are distilled from together, see ``weights``. None takes the one under
    ``runs/dump`` that was made of this data set."""
    weights: tuple[float, ...] | None = None
    """Weights of the mean of several stores, in their order, divided by their sum; None is the same for all."""
    data: str = "digits"
    """The data set that the store was made of, as ``open_images`` takes it; its ``train`` split is trained on."""
    val_data: str | None = None
    """Data set to validate on; None is the ``val`` split of ``data``, where it has one."""
    subset: int | None = None
    """Use only this many samples, evenly spaced; None is as many as the store was made of."""
    hard_labels_only: bool = False
    """Train on the labels with the same recipe, seeds and views, without opening a store. Recipes whose
    ``distillation`` is ``none`` do so without this."""
    topk: int | None = None
    """Read at most this many classes of each record; None reads all that were kept."""
    view: str | None = None
    """The view spec, as ``dump`` takes it; None is the store's, or the recipe's without a store. A store of a user's
    own transform needs it named."""
    size: int | None = None
    """Side of the views in pixels; None is the recipe's, else the store's, else the data set's default."""
    shuffle: str | None = None
    """``shards`` visits a store's shards in an order that depends on the run seed; None is the order of the dump."""
    recipe: Recipe | str | None = None
    """A recipe or its name; None is ``digits`` on digits and ``tinyvit_1k_distill`` elsewhere."""
    epochs: int | None = None
    """Overrides the recipe's field, as do all that follow up to ``harmonic_weights``; None keeps it."""
    warmup_epochs: float | None = None
    """See ``Recipe``."""
    batch_size: int | None = None
    """Images per optimiser step, whatever ``accumulate`` is."""
    base_lr: float | None = None
    """Peak learning rate per 512 images of the batch."""
    base_min_lr: float | None = None
    """Final learning rate per 512 images."""
    base_warmup_lr: float | None = None
    """First learning rate of the warm-up per 512 images."""
    weight_decay: float | None = None
    """See ``Recipe``."""
    clip_grad: float | None = None
    """Largest norm of the gradient."""
    drop_path: float | None = None
    """Rate of stochastic depth, whatever the student."""
    layer_decay: float | None = None
    """Factor of the learning rate from each block to the one before it."""
    label_smoothing: float | None = None
    """Hard labels only."""
    bn_eval: bool | None = None
    """Keep BatchNorm in eval mode."""
    ema_decay: float | None = None
    """Decay of the average of the weights that is validated and saved."""
    mixup: float | None = None
    """Alpha of Mixup in runs without a store; stored views are mixed as they were dumped."""
    cutmix: float | None = None
    """Alpha of CutMix, likewise."""
    betas: tuple[float, float] | None = None
    """AdamW's decay rates of the two moments."""
    eps: float | None = None
    """AdamW's term in the denominator."""
    distillation: str | None = None
    """Loss against the teacher: ``cross_entropy``, ``mse`` of logits, ``kl``; ``none`` trains on labels alone."""
    temperature: float | None = None
    """Of ``kl`` only."""
    joint: str | None = None
    """How the loss on hard labels joins in: ``none``, ``alpha``, ``ratio``, ``harmonic``."""
    alpha: float | tuple[float, float] | None = None
    """Weight of the loss on hard labels: fixed, or at the first and the last step; of the joint loss ``alpha`` only."""
    harmonic_weights: tuple[float, float] | None = None
    """Weights of distillation loss and label loss; of the joint loss ``harmonic`` only."""
    teacher_online: str | None = None
    """A teacher to keep in memory, too, as ``dump`` takes it: the student then also learns from its attention and
    hidden states. Targets for logits come from the store all the same."""
    teacher_checkpoint: str | None = None
    """Weights of ``teacher_online``; None is as for ``dump``."""
    attention_weight: float = 1.0
    """Weight of the loss on attention, with ``teacher_online``."""
    hidden_weight: float = 0.1
    """Weight of the loss on hidden states, likewise."""
    match: tuple[str, ...] | None = None
    """Layers of student and ``teacher_online`` that are compared, each pair ``student:teacher``, counted over all
    stages from 0; None takes those of MiniViT, or every second one of equally many."""
    init_from: str | None = None
    """Weights to start from, a file or the folder of a run, of a model of the student's family; None starts at random.
    What corresponds is copied, see ``students.transfer``."""
    cut: int | None = None
    """How many leading blocks are copied from ``init_from``; None copies all that lie at the same place in both, and
    the whole model where both are of the same architecture."""
    freeze_copied: bool = False
    """Hold what was copied fixed: no gradient, and eval mode."""
    seed: int = 0
    """Run seed: initial weights, drop path, the order of shuffled shards, and the views of a run without a store."""
    accumulate: int = 1
    """Pieces that a batch is cut into, one after the other, to save memory."""
    out: str | None = None
    """The run's folder; None is ``runs/train/<student>-<data>``, with ``-labels`` for labels alone."""
    fresh: bool = False
    """Start anew where the folder holds a run, instead of resuming it."""
    checkpoint_steps: int = 500
    """Optimiser steps between two checkpoints; there is one at the end of each epoch, too."""
    log_steps: int = 10
    """Optimiser steps between two lines of metrics."""
    tensorboard: bool = True
    """Write TensorBoard events."""
    skip_bad: bool = False
    """Train on without the images that do not decode, instead of stopping."""
    exclude: str | None = None
    """File that names samples of weight 0 in the loss: the JSON of ``logitstore audit``, or a number or name a line."""
    workers: int | None = None
    """Threads that decode and render; None is one per core, half as many on a CPU. Never changes a view."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``, …; ``auto`` takes a GPU if there is one."""
    dtype: str = "auto"
    """``float32``, ``bfloat16`` or ``float16``, by autocast; ``auto`` is bfloat16 on a GPU."""

    def __post_init__(self) -> None:
        for name in ("accumulate", "checkpoint_steps", "log_steps", "topk", "size", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
        if self.seed < 0:
            raise InputError(f"--seed must be at least 0, got {self.seed}.")
        read_architecture(self.student_args, self.share)
        if self.init_from is None and (self.cut is not None or self.freeze_copied):
            flag = "--cut" if self.cut is not None else "--freeze-copied"
            raise InputError(f"{flag} says what to do with the weights of --init-from: name them, too.")
        if self.cut is not None and self.cut < 1:
            raise InputError(f"--cut must be at least 1, got {self.cut}: with less, nothing would be copied.")
        if self.shuffle not in (None, "shards"):
            raise InputError(f"--shuffle must be shards, got {self.shuffle}.")
        if self.hard_labels_only:
            for name in TEACHER_LOSS:
                if getattr(self, name) is not None:
                    raise InputError(
                        f"--hard-labels-only leaves no loss but that on labels, so --{name.replace('_', '-')} has no "
                        "meaning; leave one out."
                    )
        if self.weights is not None:
            if len(self.stores) < 2:
                raise InputError("--weights says how to join several stores: give --store for each of them, too.")
            normalised(self.weights, len(self.stores))
        recipe = self.effective_recipe()
        self._require_a_use_of_the_store(recipe)
        _ = self.online
        batch = recipe.batch_size
        if batch % 2 or self.accumulate > batch:
            raise InputError(
                f"--batch-size must be even, because views are mixed in pairs, and at least --accumulate; got {batch} "
                f"and {self.accumulate}."
            )

    def _require_a_use_of_the_store(self, recipe: Recipe) -> None:
        """Refuse to name a store, or how to read it, where that changes nothing."""
        if recipe.distillation == "mse" and self.topk is not None:
            raise InputError("The loss mse compares logits of all classes, so --topk has no meaning; leave one out.")
        if recipe.distillation != "none":
            return
        why = f"The recipe {recipe.name} trains on labels alone"
        way_out = "choose a loss against the teacher with --distillation, or leave it out"
        if self.hard_labels_only:
            why, way_out = "--hard-labels-only opens no store", "leave one out"
        elif self.distillation == "none":
            why, way_out = "--distillation none opens no store", "leave one out"
        for name in STORE_FLAGS:
            if getattr(self, name) is not None:
                raise InputError(f"{why}, so --{name.replace('_', '-')} has no meaning; {way_out}.")

    @property
    def architecture(self) -> dict[str, Argument]:
        """The arguments of the student's architecture that were given, by name."""
        return read_architecture(self.student_args, self.share)

    @property
    def online(self) -> OnlineOptions | None:
        """What is asked of a teacher in memory; None where there is none."""
        return read_online(
            self.teacher_online,
            checkpoint=self.teacher_checkpoint,
            attention_weight=self.attention_weight,
            hidden_weight=self.hidden_weight,
            match=self.match,
        )

    @property
    def stores(self) -> tuple[str, ...]:
        """The stores that were named."""
        if self.store is None:
            return ()
        return (self.store,) if isinstance(self.store, str | PathLike) else tuple(self.store)

    @property
    def opens_store(self) -> bool:
        """Whether there is a teacher to learn from; without one the run trains on labels alone."""
        return self.effective_recipe().distillation != "none"

    @classmethod
    def from_yaml(cls, path: str | PathLike[str], **overrides: Any) -> TrainConfig:
        """The configuration that a run file gives: what a run saved as ``run.yaml``, or options written by hand.

        Args:
            path: the file.
            overrides: fields that the file does not decide. Where they change whether there is a teacher at all,
                what the file says about its store and its loss falls away.

        Raises:
            InputError: the file cannot be read, a value is of another type or out of range, or the views or the teacher
                are made by code that ``overrides`` do not name: it is never imported on a file's word.
        """
        return cls(**{**repeated_options(path, get_type_hints(cls), overrides), **overrides})

    def options(self) -> dict[str, Any]:
        """The options that repeat this run, as JSON types: what was given, and the recipe in full instead of its name.

        ``fresh`` is left out: it is about what lay in the folder before.
        """
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        unused = ONLINE if self.teacher_online is None else ()
        for name in ("fresh", "recipe", "drop_path", *_RECIPE_FIELDS, *unused):
            del given[name]
        given["recipe"] = self.effective_recipe().to_dict()
        return {name: _plain(value) for name, value in given.items() if value is not None}

    def effective_recipe(self) -> Recipe:
        """The recipe with this configuration's overrides.

        Raises:
            InputError: an unknown recipe, or a value out of range.
        """
        overrides = {name: getattr(self, name) for name in _RECIPE_FIELDS}
        if isinstance(self.alpha, float | int):
            overrides["alpha"] = (float(self.alpha), float(self.alpha))
        if self.drop_path is not None:
            overrides["drop_path"] = (("", self.drop_path),)
        if self.hard_labels_only:
            overrides["distillation"] = "none"
        try:
            return select_recipe(self.recipe, data=self.data, **overrides)
        except ValueError as exc:
            raise InputError(str(exc)) from exc


def _plain(value: Any) -> Any:
    """A value as JSON takes it."""
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return fspath(value) if isinstance(value, PathLike) else value
