"""A protocol as a list of steps, and the steps that every protocol has: a teacher, stores, models. Nothing runs here.

Every model is trained by ``logitstore train``, the teacher too, since it resumes at any step.
"""

from __future__ import annotations

import shlex
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.framework.base import BaseSetting
from benchmarks.framework.launch import Step
from logitstore.cards import load_card, weights_path

Words = tuple[str, ...]
_LEAVINGS = ("checkpoint.pt", "best.safetensors", "best.json")


@dataclass(frozen=True, kw_only=True)
class BaseProtocol:
    """All steps of a setting, in the order in which they are done."""

    setting: BaseSetting
    """What it was made of."""
    steps: dict[str, Step] = field(default_factory=dict)
    """By name."""

    def add(self, step: Step) -> Step:
        """The step of that name: this one, unless there is one."""
        return self.steps.setdefault(step.name, step)

    def progress(self, finished: Container[str], seconds: float) -> dict[str, Any]:
        """How far the run is, as the JSON line begins.

        Args:
            finished: names of the steps that are done.
            seconds: that this call took.
        """
        done = sum(name in finished for name in self.steps)
        return {
            "complete": done == len(self.steps),
            "steps_done": done,
            "steps": len(self.steps),
            "seconds": round(seconds, 1),
            "data": self.setting.images.name,
        }

    def teacher(self, name: str) -> Step:
        """The step that leaves a teacher of the data, or measures the one that is given."""
        setting = self.setting
        given = dict(setting.teacher_checkpoints).get(name)
        words: Words
        if given is not None:
            data = setting.val_data or setting.data
            words = ("eval", "--checkpoint", given, "--model", name, "--data", data, "--size", str(setting.side),
                     *self.machine_words())  # fmt: skip
            return self.add(Step(name=f"teacher-{name}", words=words))
        epochs = setting.teacher_epochs or setting.num_epochs
        initial: Words = ()
        needs: Words = ()
        if setting.pretrain_data is not None:
            before = self.training(
                f"pretrain-{name}",
                (*self.model_words(name), "--data", setting.pretrain_data, *self.label_words()),
                epochs=setting.pretrain_epochs or epochs,
                options=(*setting.options, *shlex.split(setting.pretrain_options)),
            )
            initial, needs = ("--init-from", str(self.folder(self.add(before)))), (before.name,)
        elif setting.initial == "pretrained":
            weights = setting.out / f"{name}-pretrained.safetensors"
            fetch = Step(name=f"fetch-{name}", words=(name, str(weights)), module="benchmarks.framework.fetch")
            initial, needs = ("--init-from", str(weights)), (self.add(fetch).name,)
        elif setting.initial != "random":
            initial = ("--init-from", setting.initial)
        words = (*self.model_words(name), *initial, *self.data_words(), *self.label_words())
        return self.add(self.training(f"teacher-{name}", words, epochs=epochs, needs=needs))

    def weights(self, name: str) -> str:
        """The teacher's file, or the folder it lies in."""
        given = dict(self.setting.teacher_checkpoints).get(name)
        return given or str(self.folder(self.teacher(name)))

    def num_classes(self, teacher: str) -> int:
        """C of a teacher: of its card where it was given, else the data's."""
        path = weights_path(self.weights(teacher))
        card = load_card(path) if path.is_file() else None
        return card.num_classes if card is not None else self.setting.images.num_classes or 0

    def dense_dump(self, name: str, teacher: str, *, epochs: int, seed: int, words: Words = ()) -> Step:
        """The step that leaves a store of all of a teacher's classes.

        Args:
            name: of the step and of the store's folder.
            teacher: who speaks.
            epochs: of views.
            seed: run seed of the views.
            words: further options of ``logitstore dump``.
        """
        setting = self.setting
        subset = () if setting.subset is None else ("--subset", str(setting.subset))
        options = ("dump", "--teacher", teacher, "--checkpoint", self.weights(teacher), "--data", setting.data, *subset,
                   "--topk", str(self.num_classes(teacher)), "--floor", "0", "--values", "f16", *words,
                   "--view", setting.view, "--size", str(setting.side), "--epochs", str(epochs), "--seed", str(seed),
                   "--store", str(setting.out / name), *self.machine_words())  # fmt: skip
        return Step(name=name, words=options, needs=(f"teacher-{teacher}",))

    def training(
        self,
        name: str,
        words: Words,
        *,
        epochs: int,
        options: Words | None = None,
        seed: int = 0,
        needs: Words = (),
        recipe: str | None = None,
        command: Words = ("train",),
        module: str = "logitstore",
    ) -> Step:
        """The step that trains a model.

        Args:
            name: of the step and of the run's folder.
            words: which model, on what.
            epochs: of training.
            options: further options of ``logitstore train``; None is the setting's.
            seed: run seed.
            needs: steps that come before.
            recipe: by which it is trained; None is the setting's.
            command: what trains it, with options of its own; it takes those of ``logitstore train``, too.
            module: whose command that is.
        """
        setting = self.setting
        out = setting.out / name
        return Step(
            name=name,
            words=(*command, *words, "--recipe", recipe or setting.recipe, "--size", str(setting.side),
                   "--epochs", str(epochs), "--batch-size", str(setting.batch),
                   *(setting.options if options is None else options),
                   "--seed", str(seed), "--no-tensorboard", "--out", str(out), *self.machine_words()),
            needs=needs,
            leavings=tuple(out / file for file in _LEAVINGS),
            module=module,
        )  # fmt: skip

    def folder(self, step: Step) -> Path:
        """Where a step leaves its model or its store."""
        return self.setting.out / step.name

    def model_words(self, name: str) -> Words:
        """Options that say which model is trained."""
        return ("--student", name)

    def data_words(self) -> Words:
        """Options that name the images."""
        setting = self.setting
        validation = () if setting.val_data is None else ("--val-data", setting.val_data)
        subset = () if setting.subset is None else ("--subset", str(setting.subset))
        return ("--data", setting.data, *validation, *subset)

    def label_words(self) -> Words:
        """Options that train on labels alone."""
        return ("--hard-labels-only", "--view", self.setting.view)

    def device_words(self) -> Words:
        """Options that say where a model runs."""
        chosen = (("--device", self.setting.device), ("--dtype", self.setting.dtype))
        return tuple(word for option, value in chosen if value != "auto" for word in (option, value))

    def machine_words(self) -> Words:
        """The same, and the number of threads."""
        workers = () if self.setting.workers is None else ("--workers", str(self.setting.workers))
        return (*workers, *self.device_words())
