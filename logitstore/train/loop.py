"""``train``: from a configuration to a trained student.

Here a run is put together out of what it trains on, the student and its folder; what happens then, and when, lives in
``run``.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from torch import nn

from logitstore.cards import run_folder, weights_path
from logitstore.device import dtype_name, require_runs, resolve_device, resolve_dtype
from logitstore.errors import InputError
from logitstore.initial import InitialWeights, take_over
from logitstore.learning.criterion import make_criterion
from logitstore.learning.folder import RunFolder
from logitstore.learning.learner import Learner
from logitstore.learning.metrics import MetricsLog
from logitstore.models import build_model, model_name, own_preprocessing
from logitstore.progress import ProgressFactory, start
from logitstore.signals import stop_requests
from logitstore.train.config import TrainConfig, TrainResult
from logitstore.train.feed import Feed, open_feed
from logitstore.train.notes import misfits
from logitstore.train.run import Run


def train(config: TrainConfig, progress: ProgressFactory | None = None) -> TrainResult:
    """Train a student, or go on with the run in its folder.

    Called again with the same configuration it resumes where the last checkpoint was written, exactly: the weights it
    ends with are those of an unbroken run. Ctrl-C and SIGTERM end it after the step, with a checkpoint.

    Args:
        config: what to train, and how.
        progress: how to show progress; None is silent.

    Raises:
        MismatchError: store, data set and view spec do not belong together, or the folder holds another run. Nothing
            is written.
        InputError: something the user named cannot be used.
        NonFiniteError: the loss is NaN or infinite.
    """
    run = _prepare(config)
    with closing(run.folder):
        state = run.folder.load(fresh=config.fresh)
        if state is not None:
            run.load_state_dict(state)
        batch = run.recipe.batch_size
        total, done = run.total_steps * batch, run.learner.step * batch
        with start(progress, total, "img", f"train {config.student}", done=done) as bar:
            run.announce(bar, resumed=state is not None)
            if not run.finished:
                run.feed.probe(run.learner.step)
                run.folder.begin(anew=state is None)
                with (
                    MetricsLog(run.folder.path, step=run.learner.step, tensorboard=config.tensorboard) as log,
                    stop_requests() as stop,
                ):
                    run.go(bar, log, stop)
                stop.obey()
        return run.result()


def _prepare(config: TrainConfig) -> Run:
    student = model_name(config.student)
    recipe = config.effective_recipe()
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    feed = open_feed(config, recipe)
    drop_path = recipe.drop_path_of(student)
    model = build_model(
        config.student, num_classes=feed.num_classes, size=feed.loader.size, drop_path=drop_path, seed=config.seed
    )
    out = Path(config.out) if config.out else run_folder("train", config.student, feed.images.name)
    if config.out is None and not config.opens_store:
        out = out.with_name(out.name + "-labels")
    initial = _take_over(config, feed, model, out)
    preprocessing = own_preprocessing(model, feed.loader.size)
    require_runs(model, feed.loader.size, name=student)
    stored, initialised = feed.store is not None, initial is not None and initial.transfer.cut is None
    unfit = misfits(recipe, student, model, feed.loader.spec, stored=stored, initialised=initialised)
    learner = Learner(
        model,
        make_criterion(recipe),
        recipe,
        preprocessing=preprocessing if initial is None else initial.preprocessing(preprocessing),
        steps_per_epoch=feed.steps_per_epoch,
        seed=config.seed,
        device=device,
        dtype=dtype,
        accumulate=config.accumulate,
    )
    identity = {
        "student": student,
        "drop_path": drop_path,
        **({} if initial is None else {"init_from": initial.identity()}),
        **feed.identity(),
        "topk": config.topk,
        "shuffle": config.shuffle,
        "seed": config.seed,
        "accumulate": config.accumulate,
        "device": device.type,
        "dtype": dtype_name(dtype),
        "learning_rates": vars(recipe.learning_rates(recipe.batch_size)),
        "recipe": recipe.to_dict(),
    }
    return Run(
        config=config,
        recipe=recipe,
        feed=feed,
        initial=initial,
        learner=learner,
        folder=RunFolder(out, identity, config.options()),
        unfit=unfit,
    )


def _take_over(config: TrainConfig, feed: Feed, model: nn.Module, out: Path) -> InitialWeights | None:
    """Give the student the weights that it is to start from, if any."""
    if config.init_from is None:
        return None
    if weights_path(config.init_from).resolve().parent == out.resolve():
        raise InputError(f"The weights of --init-from lie in {out}, which this run would replace: give another --out.")
    return take_over(
        config.init_from, model, cut=config.cut, freeze_copied=config.freeze_copied, class_names=feed.class_names
    )
