"""The paper's protocol as a list of steps: teachers, stores, students. Nothing runs here.

Algorithm 1 of the paper: fine-tune a pre-trained model, copy its leading blocks into a smaller one, train that against
it. Here the teacher speaks once, into a dense store with the log-sum-exp, from which every student learns.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.framework.launch import Step
from benchmarks.framework.models import BaseProtocol, Words
from benchmarks.framework.rows import MODELS, TEACHER, Variant
from benchmarks.framework.setting import Setting


@dataclass(frozen=True, kw_only=True)
class Protocol(BaseProtocol):
    """All steps of a setting, in the order in which they are done, and which of them a row needs."""

    setting: Setting
    """What it was made of."""

    @classmethod
    def of(cls, setting: Setting) -> Protocol:
        """The teacher first; then seed after seed, so that a run that ends early has whole seeds."""
        protocol = cls(setting=setting)
        protocol.teacher(TEACHER)
        for seed in setting.seeds:
            for row in setting.rows:
                protocol.student(row.variant, seed)
        if "X" in setting.tables:
            protocol.add(protocol._models())
        return protocol

    def store(self, teacher: str, seed: int) -> Step:
        """The step that leaves a store of a teacher's logits."""
        setting = self.setting
        seed = setting.seeds[0] if setting.shared_store else seed
        epochs = min(setting.store_epochs or setting.num_epochs, setting.num_epochs)
        name = f"store-{teacher}-seed{seed}"
        return self.add(self.dense_dump(name, teacher, epochs=epochs, seed=seed, words=("--logz",)))

    def student(self, variant: Variant, seed: int) -> Step:
        """The step that trains a student."""
        setting = self.setting
        epochs = max(1, setting.num_epochs // 2) if variant.half else setting.num_epochs
        source = self.label_words()
        needs: Words = ()
        if variant.loss:
            store = self.store(variant.teacher, seed)
            shuffled = ("--shuffle", "shards") if setting.shared_store else ()
            source = ("--store", str(self.folder(store)), *shuffled, *variant.loss)
            needs = (store.name,)
        initial: Words = ()
        if variant.copied:
            frozen = ("--freeze-copied",) if setting.freeze_copied else ()
            initial = ("--init-from", self.weights(variant.teacher), *frozen)
            needs += (f"teacher-{variant.teacher}",)
        words = ("--student", variant.student, *initial, *self.data_words(), *source)
        return self.add(self.training(f"{variant.name}-seed{seed}", words, epochs=epochs, seed=seed, needs=needs))

    def _models(self) -> Step:
        """The step that measures Table X on this machine, at the size of the views."""
        size = ("--size", str(self.setting.side))
        return Step(name="models", words=("models", *MODELS, "--measure", *size, *self.device_words()))
