"""The paper's protocol as a list of steps: teachers, stores, students. Nothing runs here.

Algorithm 1 of the paper: fine-tune a pre-trained model, copy its leading blocks into a smaller one, train that against
it. Here the teacher speaks once, into a dense store with the log-sum-exp, from which every student learns. Every model
is trained by ``logitstore train``, the teacher too, since it resumes at any step.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.framework.launch import Step
from benchmarks.framework.rows import MODELS, TEACHER, Variant
from benchmarks.framework.setting import Setting
from logitstore.cards import load_card, weights_path
from logitstore.images import ImageSet

RECIPE = "swin_framework"
_LEAVINGS = ("checkpoint.pt", "best.safetensors", "best.json")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """All steps of a setting, in the order in which they are done, and which of them a row needs."""

    setting: Setting
    """What it was made of."""
    steps: dict[str, Step] = field(default_factory=dict)
    """By name."""

    @classmethod
    def of(cls, setting: Setting) -> Protocol:
        """The teacher first; then seed after seed, so that a run that ends early has whole seeds."""
        protocol = cls(setting=setting)
        protocol.teacher(TEACHER)
        for seed in setting.seeds:
            for row in setting.rows:
                protocol.student(row.variant, seed)
        if "X" in setting.tables:
            protocol._add(models_step(setting))
        return protocol

    def _add(self, step: Step) -> Step:
        return self.steps.setdefault(step.name, step)

    def teacher(self, name: str) -> Step:
        """The step that leaves a teacher of the data, or measures the one that is given."""
        setting = self.setting
        given = dict(setting.teacher_checkpoints).get(name)
        words: tuple[str, ...]
        if given is not None:
            data = setting.val_data or setting.data
            words = ("eval", "--checkpoint", given, "--model", name, "--data", data, "--size", str(setting.side),
                     *_machine(setting))  # fmt: skip
            return self._add(Step(name=f"teacher-{name}", words=words))
        epochs = setting.teacher_epochs or setting.num_epochs
        initial: tuple[str, ...] = ()
        needs: tuple[str, ...] = ()
        if setting.pretrain_data is not None:
            before = _train(
                setting,
                f"pretrain-{name}",
                ("--student", name, "--data", setting.pretrain_data, *_hard_labels(setting)),
                epochs=setting.pretrain_epochs or epochs,
                options=(*setting.options, *shlex.split(setting.pretrain_options)),
            )
            initial, needs = ("--init-from", str(_folder(setting, self._add(before)))), (before.name,)
        elif setting.initial == "pretrained":
            weights = setting.out / f"{name}-pretrained.safetensors"
            fetch = Step(name=f"fetch-{name}", words=(name, str(weights)), module="benchmarks.framework.fetch")
            initial, needs = ("--init-from", str(weights)), (self._add(fetch).name,)
        elif setting.initial != "random":
            initial = ("--init-from", setting.initial)
        words = ("--student", name, *initial, *_data(setting), *_hard_labels(setting))
        step = _train(setting, f"teacher-{name}", words, epochs=epochs, options=setting.options, needs=needs)
        return self._add(step)

    def weights(self, name: str) -> str:
        """The teacher's file, or the folder it lies in."""
        given = dict(self.setting.teacher_checkpoints).get(name)
        return given or str(_folder(self.setting, self.teacher(name)))

    def store(self, teacher: str, seed: int) -> Step:
        """The step that leaves a store of a teacher's logits."""
        setting = self.setting
        weights = self.weights(teacher)
        seed = setting.seeds[0] if setting.shared_store else seed
        name = f"store-{teacher}-seed{seed}"
        epochs = min(setting.store_epochs or setting.num_epochs, setting.num_epochs)
        subset = () if setting.subset is None else ("--subset", str(setting.subset))
        words = ("dump", "--teacher", teacher, "--checkpoint", weights, "--data", setting.data, *subset,
                 "--topk", str(_num_classes(weights, setting.images)), "--floor", "0", "--values", "f16", "--logz",
                 "--view", setting.view, "--size", str(setting.side), "--epochs", str(epochs), "--seed", str(seed),
                 "--store", str(setting.out / name), *_machine(setting))  # fmt: skip
        return self._add(Step(name=name, words=words, needs=(f"teacher-{teacher}",)))

    def student(self, variant: Variant, seed: int) -> Step:
        """The step that trains a student."""
        setting = self.setting
        epochs = max(1, setting.num_epochs // 2) if variant.half else setting.num_epochs
        source = _hard_labels(setting)
        needs: tuple[str, ...] = ()
        if variant.loss:
            store = self.store(variant.teacher, seed)
            shuffled = ("--shuffle", "shards") if setting.shared_store else ()
            source = ("--store", str(_folder(setting, store)), *shuffled, *variant.loss)
            needs = (store.name,)
        initial: tuple[str, ...] = ()
        if variant.copied:
            frozen = ("--freeze-copied",) if setting.freeze_copied else ()
            initial = ("--init-from", self.weights(variant.teacher), *frozen)
            needs += (f"teacher-{variant.teacher}",)
        words = ("--student", variant.student, *initial, *_data(setting), *source)
        name = f"{variant.name}-seed{seed}"
        return self._add(_train(setting, name, words, epochs=epochs, options=setting.options, seed=seed, needs=needs))


def models_step(setting: Setting) -> Step:
    """The step that measures Table X on this machine, at the size of the views."""
    return Step(name="models", words=("models", *MODELS, "--measure", "--size", str(setting.side), *_device(setting)))


def _train(
    setting: Setting,
    name: str,
    words: tuple[str, ...],
    *,
    epochs: int,
    options: tuple[str, ...],
    seed: int = 0,
    needs: tuple[str, ...] = (),
) -> Step:
    out = setting.out / name
    return Step(
        name=name,
        words=("train", *words, "--recipe", RECIPE, "--size", str(setting.side), "--epochs", str(epochs),
               "--batch-size", str(setting.batch), *options, "--seed", str(seed), "--no-tensorboard",
               "--out", str(out), *_machine(setting)),
        needs=needs,
        leavings=tuple(out / file for file in _LEAVINGS),
    )  # fmt: skip


def _folder(setting: Setting, step: Step) -> Path:
    return setting.out / step.name


def _data(setting: Setting) -> tuple[str, ...]:
    validation = () if setting.val_data is None else ("--val-data", setting.val_data)
    subset = () if setting.subset is None else ("--subset", str(setting.subset))
    return ("--data", setting.data, *validation, *subset)


def _hard_labels(setting: Setting) -> tuple[str, ...]:
    return ("--hard-labels-only", "--view", setting.view)


def _device(setting: Setting) -> tuple[str, ...]:
    chosen = (("--device", setting.device), ("--dtype", setting.dtype))
    return tuple(word for option, value in chosen if value != "auto" for word in (option, value))


def _machine(setting: Setting) -> tuple[str, ...]:
    workers = () if setting.workers is None else ("--workers", str(setting.workers))
    return (*workers, *_device(setting))


def _num_classes(weights: str, images: ImageSet) -> int:
    """C of the teacher: of its card where it was given, else the data's."""
    card = load_card(weights_path(weights)) if weights_path(weights).is_file() else None
    return card.num_classes if card is not None else images.num_classes or 0
