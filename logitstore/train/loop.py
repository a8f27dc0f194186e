"""``train``: from a configuration to a trained student.

Here a run is put together out of what it trains on, the student and its folder; what happens then, and when, lives in
``learning.run``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import nn

from logitstore.cards import Card, run_folder
from logitstore.device import dtype_name, require_runs, resolve_device, resolve_dtype
from logitstore.distributed import Ranks, joined
from logitstore.initial import InitialWeights, take_over
from logitstore.learning.criterion import make_criterion
from logitstore.learning.feed import Feed
from logitstore.learning.folder import RunFolder, require_elsewhere
from logitstore.learning.learner import Learner
from logitstore.learning.run import Run
from logitstore.models import model_name, own_preprocessing
from logitstore.online import OnlineTeacher, open_online
from logitstore.progress import ProgressFactory
from logitstore.train.architecture import make_student
from logitstore.train.config import TrainConfig
from logitstore.train.feed import open_feed
from logitstore.train.notes import misfits
from logitstore.train.result import TrainResult
from students import build_arguments


def train(
    config: TrainConfig, progress: ProgressFactory | None = None, *, opener: Callable[..., Feed] = open_feed
) -> TrainResult:
    """Train a student, or go on with the run in its folder.

    Called again with the same configuration it resumes where the last checkpoint was written, exactly: the weights it
    ends with are those of an unbroken run. Ctrl-C and SIGTERM end it after the step, with a checkpoint.

    Processes that torchrun started share each batch, see docs/training.md; each returns the same. Another number of
    them may resume the run.

    Args:
        config: what to train, and how.
        progress: how the main process shows progress; None is silent.
        opener: opens what the run trains on; what another one than ``open_feed`` gives may bring targets of its own,
            and says so in its identity.

    Raises:
        PeerError: another process failed.
        MismatchError: store, data set and view spec do not belong together, or the folder holds another run. Nothing
            is written.
        InputError: something the user named cannot be used.
        NonFiniteError: the loss is NaN or infinite.
    """
    with joined() as ranks:
        with ranks.agreed():
            run = _prepare(config, ranks, opener)
        with closing(run.feed.loader):
            run.carry_out(f"train {config.student}", progress, fresh=config.fresh, tensorboard=config.tensorboard)
    return TrainResult(
        out=str(run.folder.path),
        checkpoint=str(run.folder.weights),
        epochs=run.validated,
        steps=run.learner.step,
        loss=run.epoch_loss,
        accuracy=run.accuracy,
        best_checkpoint=None if run.best is None else str(run.folder.best_weights),
        best_accuracy=run.best,
        images_per_second=run.images_per_second,
    )


def _prepare(config: TrainConfig, ranks: Ranks, opener: Callable[..., Feed]) -> Run:
    student = model_name(config.student)
    recipe = config.effective_recipe()
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    feed = opener(config, recipe, rank=ranks.rank, world=ranks.world)
    model = make_student(config, num_classes=feed.num_classes, size=feed.loader.size)
    out = Path(config.out) if config.out else run_folder("train", config.student, feed.images.name)
    if config.out is None and not config.opens_store:
        out = out.with_name(out.name + "-labels")
    initial = _take_over(config, feed, model, out)
    preprocessing = own_preprocessing(model, feed.loader.size)
    require_runs(model, feed.loader.size, name=student)
    online = _open_online(config, feed, model, device, dtype)
    stored, initialised = feed.store is not None, initial is not None and initial.transfer.cut is None
    unfit = misfits(
        recipe, student, model, feed.loader.spec, size=feed.loader.size, stored=stored, initialised=initialised
    )
    learner = Learner(
        model,
        make_criterion(recipe) if online is None else online.added_to(make_criterion(recipe)),
        recipe,
        preprocessing=preprocessing if initial is None else initial.preprocessing(preprocessing),
        steps_per_epoch=feed.steps_per_epoch,
        seed=config.seed,
        device=device,
        dtype=dtype,
        accumulate=config.accumulate,
        beside=online,
        ranks=ranks,
    )
    identity = {
        "student": student,
        **({"student_args": config.architecture} if config.architecture else {}),
        "drop_path": recipe.drop_path_of(student),
        **({} if initial is None else {"init_from": initial.identity()}),
        **feed.identity(),
        **({} if online is None else {"teacher_online": online.identity()}),
        "topk": config.topk,
        "shuffle": config.shuffle,
        "seed": config.seed,
        "accumulate": config.accumulate,
        "device": device.type,
        "dtype": dtype_name(dtype),
        "learning_rates": vars(recipe.learning_rates(recipe.batch_size)),
        "recipe": recipe.to_dict(),
    }
    folder = RunFolder(out, identity, config.options())
    return Run(
        feed=feed,
        learner=learner,
        folder=folder,
        epochs=recipe.epochs,
        card=_card(config, feed, learner, folder),
        kind="student",
        ranks=ranks,
        notes=(
            *(() if initial is None else ("\n".join(initial.lines()),)),
            *(() if online is None else online.notes(_told(feed))),
            *unfit,
        ),
        keep_best=True,
        checkpoint_steps=config.checkpoint_steps,
        log_steps=config.log_steps,
    )


def _card(config: TrainConfig, feed: Feed, learner: Learner, folder: RunFolder) -> Card:
    """The card of the student before the first step."""
    return Card(
        model=str(folder.identity["student"]),
        model_args=build_arguments(config.student, feed.loader.size, config.architecture),
        num_classes=feed.num_classes,
        class_names=feed.class_names,
        size=feed.loader.size,
        preprocessing=learner.preprocessing,
        data=folder.identity["data"],
        training={**{name: value for name, value in folder.identity.items() if name != "data"}, **_teachers(feed)},
    )


def _teachers(feed: Feed) -> dict[str, Any]:
    """Whose answers the stores hold, for the card; a run's identity has the stores' ids instead."""
    told = _told(feed)
    return {"teachers": told} if told else {}


def _told(feed: Feed) -> list[dict[str, Any]]:
    """Name and weights of each teacher whose answers the stores hold."""
    members = () if feed.store is None else feed.store.members
    return [{key: store.manifest.teacher.get(key) for key in ("name", "sha256")} for store in members]


def _open_online(
    config: TrainConfig, feed: Feed, model: nn.Module, device: torch.device, dtype: torch.dtype
) -> OnlineTeacher | None:
    """The teacher that is to be in memory, if any."""
    if config.online is None:
        return None
    return open_online(
        config.online,
        model,
        name=config.student,
        images=feed.images,
        size=feed.loader.size,
        device=device,
        dtype=dtype,
    )


def _take_over(config: TrainConfig, feed: Feed, model: nn.Module, out: Path) -> InitialWeights | None:
    """Give the student the weights that it is to start from, if any."""
    if config.init_from is None:
        return None
    require_elsewhere(config.init_from, out, option="--init-from")
    return take_over(
        config.init_from, model, cut=config.cut, freeze_copied=config.freeze_copied, class_names=feed.class_names
    )
