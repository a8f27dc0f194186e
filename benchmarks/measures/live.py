"""A training step from a store against one with hard labels and one with the teacher alive beside the student.

The same student, recipe, images and kind of views on every side; what differs is where targets come from. A live
teacher sees the student's own views and its distribution is used whole, as research scripts do it. The ceiling is the
step with hard labels.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.common import Row, Work, against_ceiling, interleaved, median_rate, median_ratio
from benchmarks.measures.memory import MIB
from benchmarks.measures.train import make_learner, stepper
from logitstore.device import autocast, normalise, resolve_device
from logitstore.learning.criterion import Criterion, Targets
from logitstore.learning.learner import Learner
from logitstore.learning.step import Placed, StepLoss
from logitstore.train import TrainConfig
from logitstore.train.feed import open_feed

Teacher = Callable[[Tensor], Tensor]


def dense_loss(logits_BC: Tensor, targets: Targets) -> Tensor:
    """Cross-entropy against the teacher's whole distribution."""
    assert targets.teacher_BC is not None
    return torch.nn.functional.cross_entropy(logits_BC.float(), targets.teacher_BC.float().softmax(1))


class LiveTeacher:
    """A learner whose targets a teacher makes in every step."""

    def __init__(self, learner: Learner, teacher: torch.nn.Module) -> None:
        self._learner = learner
        self._teacher = teacher.to(learner.device).eval()
        self.device, self.place, self.require_finite = learner.device, learner.place, learner.require_finite

    def train_step(self, placed: Placed) -> StepLoss:
        """One step: the teacher's logits of these views, then the student's step."""
        preprocessing = self._learner.preprocessing
        images_BCHW = normalise(placed.views_BCHW, preprocessing.mean, preprocessing.std, self.device)
        with torch.inference_mode(), autocast(self.device, self._learner.dtype):
            logits_BC = self._teacher(images_BCHW)
        targets = replace(placed.targets, teacher_BC=logits_BC.clone())
        return self._learner.train_step(replace(placed, targets=targets))


def measure(
    from_store: TrainConfig,
    with_labels: TrainConfig,
    teachers: Mapping[str, Callable[[], torch.nn.Module]],
    *,
    steps: int,
    repeats: int,
) -> tuple[Row, list[Row]]:
    """Time steps with hard labels, from the store and with live teachers, one kind of memory peak each.

    Args:
        from_store: a run that distils from a store.
        with_labels: the same without one.
        teachers: by name, what makes a teacher of as many classes and the same size of view.
        steps: steps in a repeat.
        repeats: rounds that count.

    Returns:
        the summary fields and the rows of the table. Memory is the most that torch took on the GPU, None on a CPU.
    """
    configs = {"hard labels": with_labels, "store": from_store}
    feeds = {name: open_feed(config, config.effective_recipe()) for name, config in configs.items()}
    makers: dict[str, Callable[[], Work]] = {
        name: lambda name=name: stepper(feeds[name], make_learner(configs[name], feeds[name]), steps)  # type: ignore[misc]
        for name in configs
    }

    def live(make: Callable[[], torch.nn.Module]) -> Work:
        learner = make_learner(with_labels, feeds["hard labels"], criterion=Criterion(distillation=dense_loss))
        return stepper(feeds["hard labels"], LiveTeacher(learner, make()), steps)

    for name, make in teachers.items():
        makers[f"{name} alive"] = lambda make=make: live(make)  # type: ignore[misc]
    where = resolve_device(from_store.device)
    peaks = {name: _peak(make(), where) for name, make in makers.items()}
    timings = interleaved({name: make() for name, make in makers.items()}, repeats=repeats)
    rates = {name: median_rate(timings[name]) for name in makers}
    rows = [{**row, "peak_mib": peaks[row["what"]]} for row in against_ceiling(rates, "images_per_s", "hard labels")]
    summary: Row = {f"train_{name.replace(' ', '_')}_images_per_s": rates[name] for name in makers}
    summary |= {f"train_{name.replace(' ', '_')}_peak_mib": peaks[name] for name in makers}
    summary["train_ratio"] = median_ratio(timings["store"], timings["hard labels"])
    for name in teachers:
        key = f"train_over_{name}_alive"
        summary[key] = median_ratio(timings["store"], timings[f"{name} alive"])
    return summary, rows


def _peak(work: Work, where: torch.device) -> float | None:
    """The most memory on the GPU, in MiB, while ``work`` runs alone; None on a CPU."""
    if where.type != "cuda":
        work()
        return None
    gc.collect()  # models of before, which may hold on to themselves
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(where)
    work()
    return torch.cuda.max_memory_allocated(where) / MIB
