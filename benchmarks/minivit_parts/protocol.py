"""The ablation as a list of steps: one teacher; for each seed one store of its answers, and the students. Nothing runs
here.

All students of a seed see the same views in the same order, those on labels too. Only where the paper compares layers
is the teacher in memory, and it is the one that filled the store.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.framework.launch import Step
from benchmarks.framework.models import BaseProtocol, Words
from benchmarks.minivit_parts.rows import FAMILIES, Architecture, Loss, Row
from benchmarks.minivit_parts.setting import MiniVitSetting

COMMANDS = "benchmarks.minivit_parts.commands"


@dataclass(frozen=True, kw_only=True)
class MiniVitProtocol(BaseProtocol):
    """All steps of a setting, in the order in which they are done."""

    setting: MiniVitSetting
    """What it was made of."""

    @classmethod
    def of(cls, setting: MiniVitSetting) -> MiniVitProtocol:
        """The teacher first; then seed after seed, so that a run that ends early has whole seeds."""
        protocol = cls(setting=setting)
        protocol.teacher(setting.teacher_name)
        for seed in setting.seeds:
            for row in setting.rows:
                protocol.student(row, seed)
        trained = tuple(protocol.steps)
        for family in setting.families:
            protocol.figures(family, trained)
        return protocol

    def model_words(self, name: str) -> Words:
        """Options that say which model is trained: the teacher has the widths of the other Swins."""
        return ("--student", name, *_options(self.setting.arguments_of("swin")))

    def store(self, seed: int) -> Step:
        """The step that leaves a store of the teacher's answers."""
        setting = self.setting
        epochs = min(setting.store_epochs or setting.num_epochs, setting.num_epochs)
        return self.add(self.dense_dump(f"store-seed{seed}", setting.teacher_name, epochs=epochs, seed=seed))

    def student(self, row: Row, seed: int) -> Step:
        """The step that trains a student."""
        source, needs = self._source(row.loss, seed)
        recipe = "minivit_deit" if row.architecture.is_deit else None
        words = ("--student", row.architecture.model, *_options(self._arguments(row.architecture)), *self.data_words(),
                 *source)  # fmt: skip
        epochs = self.setting.num_epochs
        step = self.training(trained(row, seed), words, epochs=epochs, seed=seed, needs=needs, recipe=recipe)
        return self.add(step)

    def _source(self, loss: Loss, seed: int) -> tuple[Words, Words]:
        """Options that say what is learned from, and the steps that make it."""
        if not loss.answers:
            return self.label_words(), ()
        setting, store = self.setting, self.store(seed)
        words: Words = ("--store", str(self.folder(store)))
        if loss.labels:
            words += ("--joint", "alpha", "--alpha", "0.5")
        if not loss.is_online:
            return words, (store.name,)
        teacher = self.teacher(setting.teacher_name)
        words += ("--teacher-online", setting.teacher_name, "--teacher-checkpoint", self.weights(setting.teacher_name),
                  "--attention-weight", f"{loss.attention:g}", "--hidden-weight", f"{loss.hidden:g}",
                  "--match", setting.matched)  # fmt: skip
        return words, (store.name, teacher.name)

    def figures(self, family: str, needs: Words) -> Step:
        """The step that counts and times a family's architectures; after all others, so that nothing runs beside it."""
        setting = self.setting
        described = [" ".join((kind.model, *self._arguments(kind))) for kind in FAMILIES[family]]
        words = ("figures", *described, "--size", str(setting.side), "--classes",
                 str(self.num_classes(setting.teacher_name)), *self.device_words())  # fmt: skip
        done = tuple(step.name for step in self.steps.values() if step.module == COMMANDS)
        return self.add(Step(name=f"figures-{family}", words=words, needs=(*needs, *done), module=COMMANDS))

    def _arguments(self, architecture: Architecture) -> Words:
        family = "deit" if architecture.is_deit else "swin"
        return (*self.setting.arguments_of(family), *architecture.arguments)


def trained(row: Row, seed: int) -> str:
    """Name of the step that trains a row's student."""
    return f"{row.step}-seed{seed}"


def _options(arguments: Words) -> Words:
    return tuple(word for argument in arguments for word in ("--student-arg", argument))
