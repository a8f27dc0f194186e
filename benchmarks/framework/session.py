"""One call of a protocol's script, from its flags to the JSON line."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.common import Row, arguments, finish
from benchmarks.framework.base import BaseSetting
from benchmarks.framework.launch import sigterm_unwinds
from benchmarks.framework.models import BaseProtocol
from benchmarks.framework.steps import StepFolder
from logitstore.errors import LogitStoreError

MORE_TO_DO = 3
"""Exit code where the time was up first."""
MARGIN = 20.0
"""Seconds before a time limit at which commands are asked to stop; at most a tenth of the limit."""

S = TypeVar("S", bound=BaseSetting)
P = TypeVar("P", bound=BaseProtocol)


def parser(description: str, *, setting: type[BaseSetting], teacher: str) -> argparse.ArgumentParser:
    """A parser with the flags that every protocol has, one for each field of ``BaseSetting`` but ``store_epochs``.

    Args:
        description: the script in a sentence.
        setting: whose defaults are told.
        teacher: whose file ``--teacher-checkpoint FILE`` is without a name before it; empty where there is no such one.
    """
    flags = arguments(description)
    flags.formatter_class = argparse.HelpFormatter
    add = flags.add_argument
    epochs, batch, seeds = setting.EPOCHS, setting.BATCH, ",".join(map(str, setting.seeds))
    add("--data", help="training images: a folder, FILE.npz, FILE.tar, a timm data set, or digits (default)")
    add("--val-data", help="images to measure on (default: the val split of --data)")
    add("--subset", type=int, help="use only so many training images, evenly spaced")
    add("--size", type=int, help="side of the views in pixels (default: 32 on digits, else 224)")
    add("--epochs", type=int, help=f"of each student (default: {epochs[0]}; {epochs[1]} on digits)")
    add("--batch-size", type=int, help=f"default: {batch[0]}; {batch[1]} on digits")
    add("--view", help="view spec of all training (default: crop_flip)")
    add("--train-options", metavar="'...'", help="further options of logitstore train, for every model")
    add("--seeds", type=numbers, metavar="0,1", help=f"run seeds of the students (default: {seeds})")
    add("--teacher-checkpoint", dest="teacher_checkpoints", type=lambda text: _checkpoint(text, teacher),
        action="append", metavar=f"[{teacher}=]FILE" if teacher else "FILE",
        help="a teacher that knows the data's classes: no training of it")  # fmt: skip
    add("--teacher-init", metavar="FILE", help="what the teacher is fine-tuned from: FILE, pretrained (timm's weights, "
        "default) or random (default on digits)")  # fmt: skip
    add("--teacher-epochs", type=int, help="of the teacher's fine-tuning (default: --epochs)")
    add("--pretrain-data", metavar="DATA", help="pre-train the teacher from random weights on these images first")
    add("--pretrain-epochs", type=int, help="of that (default: --teacher-epochs)")
    add("--pretrain-options", metavar="'...'", help="further options of logitstore train for that")
    add("--workers", type=int, help="threads that decode and render")
    add("--device", help="cpu, cuda, ... (default: auto)")
    add("--dtype", help="float32, bfloat16 or float16 (default: auto)")
    add("--jobs", type=int, default=1, help="steps that run at the same time, where a GPU has room (default: 1)")
    out = {field.name: field.default for field in dataclasses.fields(setting)}["out"]
    add("--out", type=Path, help=f"folder of the run (default: {out})")
    add("--time-limit", type=float, metavar="SECONDS", help=f"stop cleanly, up to {MARGIN:.0f} s before; exit code "
        f"{MORE_TO_DO} where more is to do; 0 runs nothing and reports what is done")  # fmt: skip
    return flags


def words(text: str) -> tuple[str, ...]:
    """Words with commas between them."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    return tuple(int(word) for word in words(text))


def _checkpoint(text: str, teacher: str) -> tuple[str, str]:
    name, separator, file = text.partition("=")
    return (name, file) if separator else (teacher, text)


def setting_of(kind: type[S], args: argparse.Namespace, quick: Mapping[str, Any]) -> S:
    """The setting that the flags describe; those that were not given keep their defaults, or those of ``--quick``."""
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    given = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    if "teacher_checkpoints" in given:
        given["teacher_checkpoints"] = tuple(given["teacher_checkpoints"])
    return kind(**{**(quick if args.quick else {}), **given})


def run(protocol: BaseProtocol, folder: StepFolder, time_limit: float | None, jobs: int = 1) -> dict[str, Row]:
    """Do what is left to do until the time is up.

    Returns:
        what finished steps printed, by name.
    """
    deadline = None
    if time_limit is not None:
        deadline = time.monotonic() + time_limit - min(MARGIN, time_limit / 10)
    steps = list(protocol.steps.values())
    folder.check(steps, protocol.setting.inputs())
    folder.run_all(steps, deadline, jobs)
    results = {name: folder.result(step) for name, step in protocol.steps.items()}
    return {name: result for name, result in results.items() if result is not None}


def conduct(
    question: str,
    args: argparse.Namespace,
    make: Callable[[], P],
    summary: Callable[[P, dict[str, Row], float], Row],
    show: Callable[[Row], None],
) -> None:
    """Run a protocol, or go on with it; print the report and the JSON line; exit with what the script promises.

    Args:
        question: the script's name.
        args: of ``parser``.
        make: the protocol that the flags describe; may refuse them.
        summary: from protocol, results and seconds to what the JSON line holds, ``complete``, ``steps_done`` and
            ``steps`` among it.
        show: prints it for people.
    """
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        protocol = make()
        with sigterm_unwinds(), StepFolder(protocol.setting.out) as folder:
            results = run(protocol, folder, args.time_limit, max(1, args.jobs))
            seconds = folder.seconds(list(protocol.steps.values()))
    except LogitStoreError as error:
        print(f"{question}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(f"{question}: stopped by Ctrl-C; the same command goes on from there.", file=sys.stderr)
        sys.exit(130)
    found = summary(protocol, results, seconds)
    show(found)
    commands = {name: step.command for name, step in protocol.steps.items()}
    if not found["complete"]:
        print(f"\n{found['steps_done']} of {found['steps']} steps are done; the same command goes on from there.")
    finish(question, found, save=args.save and (found["complete"] or args.time_limit == 0),
           details={"commands": commands})  # fmt: skip
    if not found["complete"]:
        sys.exit(MORE_TO_DO)
