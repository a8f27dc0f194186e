"""The proof as a list of steps: one teacher; for each seed one dense store, what is cut from it, students. Nothing runs
here.

The teacher speaks once for each seed, into the dense store. All other stores are cut from it, so they hold the same
views, and what the same teacher said of them. Students of one seed begin with the same weights and see views in the
same order; only the targets differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.framework.launch import Step
from benchmarks.framework.models import BaseProtocol, Words
from benchmarks.quality_parts.conditions import CONDITIONS, Condition
from benchmarks.quality_parts.setting import QualitySetting

COMMANDS = "benchmarks.quality_parts.commands"
CHECK = "listen-dense"
"""The step that runs the teacher again on views of the first dense store."""
_VIEWS = "512"


@dataclass(frozen=True, kw_only=True)
class QualityProtocol(BaseProtocol):
    """All steps of a setting, in the order in which they are done."""

    setting: QualitySetting
    """What it was made of."""

    @classmethod
    def of(cls, setting: QualitySetting) -> QualityProtocol:
        """The teacher first; then seed after seed, so that a run that ends early has whole seeds."""
        protocol = cls(setting=setting)
        protocol.add(protocol.teacher(setting.teacher))
        for seed in setting.seeds:
            for name in setting.conditions:
                protocol.student(CONDITIONS[name], seed)
        return protocol

    def dense(self, seed: int) -> Step:
        """The step that leaves a seed's dense store; the first seed's is compared with the teacher, too."""
        setting = self.setting
        name = f"store-dense-seed{seed}"
        step = self.add(self.dense_dump(name, setting.teacher, epochs=setting.num_epochs, seed=seed))
        if seed == setting.seeds[0]:
            words = ("listen", str(self.folder(step)), "--teacher", setting.teacher, "--teacher-checkpoint",
                     self.weights(setting.teacher), "--data", setting.data, "--views", _VIEWS,
                     *self.machine_words())  # fmt: skip
            self.add(Step(name=CHECK, words=words, needs=(name,), module=COMMANDS))
        weigh = ("weigh", str(self.folder(step)), str(self.folder(step)))
        self.add(Step(name=f"weigh-dense-seed{seed}", words=weigh, needs=(name,), module=COMMANDS))
        return step

    def weighed(self, condition: Condition, seed: int) -> str:
        """Name of the step that weighs a condition's store."""
        return f"{'weigh' if condition.rule is None else 'store'}-{condition.name}-seed{seed}"

    def store(self, condition: Condition, seed: int) -> Step:
        """The step that leaves a condition's store."""
        whole = self.dense(seed)
        if condition.packed is not None:
            return self._packed(condition, self.store(CONDITIONS[condition.packed], seed), seed)
        if condition.rule is None:
            return whole
        name = self.weighed(condition, seed)
        words = ("cut", str(self.folder(whole)), str(self.setting.out / name), *condition.rule.words())
        if condition.rule.cycled:
            words += ("--epochs", str(self.setting.cycled_epochs))
        needs: Words = (whole.name,)
        first = self.dense(self.setting.seeds[0])
        if condition.rule.measures and first != whole:  # every seed keeps the same
            words, needs = (*words, "--chosen-on", str(self.folder(first))), (*needs, first.name)
        return self.add(Step(name=name, words=words, needs=needs, module=COMMANDS))

    def _packed(self, condition: Condition, plain: Step, seed: int) -> Step:
        """The step that packs a store; the one after it weighs it."""
        dense = self.dense(seed)
        name = f"store-{condition.name}-seed{seed}"
        out = str(self.setting.out / name)
        convert = ("convert", str(self.folder(plain)), out, "--codec", "packed")
        step = self.add(Step(name=name, words=convert, needs=(plain.name,)))
        weigh = ("weigh", out, str(self.folder(dense)))
        needs = (name, dense.name)
        self.add(Step(name=self.weighed(condition, seed), words=weigh, needs=needs, module=COMMANDS))
        return step

    def student(self, condition: Condition, seed: int) -> Step:
        """The step that trains a student; the one after it measures it."""
        setting = self.setting
        weights = self.weights(setting.teacher)
        needs: Words = ()
        source, module = self.label_words(), "logitstore"
        command: Words = ("train",)
        if condition.name != "labels":
            store = self.store(condition, seed)
            source, needs = ("--store", str(self.folder(store))), (store.name,)
        if condition.name == "live":
            command = ("live", "--live-teacher", setting.teacher, "--live-checkpoint", weights)
            module = COMMANDS
        step = self.add(
            self.training(
                f"{condition.name}-seed{seed}",
                ("--student", setting.student, *self.data_words(), *source),
                epochs=setting.num_epochs,
                seed=seed,
                needs=needs,
                command=command,
                module=module,
            )
        )
        data = ("--data", setting.val_data or setting.data)
        words = ("eval", "--checkpoint", str(self.folder(step)), "--teacher", weights, *data, *self.machine_words())
        self.add(Step(name=measured(condition, seed), words=words, needs=(step.name, f"teacher-{setting.teacher}")))
        return step


def measured(condition: Condition, seed: int) -> str:
    """Name of the step that measures a student."""
    return f"eval-{condition.name}-seed{seed}"
