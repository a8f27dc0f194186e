"""The Swin compression framework, measured: the paper's Tables II to X on a data set of yours, beside the paper's rows.

    python -m benchmarks.swin_framework                                          digits: it runs, and claims nothing
    python -m benchmarks.swin_framework --data train.npz --val-data test.npz --size 112 --epochs 20 --seeds 0,1

Every step is a command of the command line in a process of its own, printed before it runs: a teacher, a store of its
logits, students. The same command again goes on where the last one ended, whatever cut it off, in the middle of a
training, too; finished steps are not done again. Exit codes: 0 all is done; 2 unusable input or a step that failed;
3 the time limit came first, and there is more to do; 130 and 143 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs as a file

from benchmarks.common import Row, arguments, finish, print_table
from benchmarks.framework import report
from benchmarks.framework.launch import sigterm_unwinds
from benchmarks.framework.protocol import Protocol
from benchmarks.framework.rows import STUDENTS, TABLES
from benchmarks.framework.setting import Setting
from benchmarks.framework.steps import StepFolder
from logitstore.errors import LogitStoreError

QUICK = {"subset": 96, "epochs": 2, "batch_size": 32, "students": ("swin_n",), "out": Path("runs/swin_framework-quick")}
MORE_TO_DO = 3
MARGIN = 20.0
"""Seconds before a time limit at which commands are asked to stop; at most a tenth of the limit."""


def parser() -> argparse.ArgumentParser:
    """One flag for each field of ``Setting``, with its sentence as help in fewer words."""
    flags = arguments(__doc__.splitlines()[0])
    flags.formatter_class = argparse.HelpFormatter
    add = flags.add_argument
    add("--data", help="training images: a folder, FILE.npz, FILE.tar, a timm data set, or digits (default)")
    add("--val-data", help="images to measure on (default: the val split of --data)")
    add("--subset", type=int, help="use only so many training images, evenly spaced")
    add("--size", type=int, help="side of the views in pixels (default: 32 on digits, else 224)")
    add("--epochs", type=int, help="of each student (default: the paper's 60; 4 on digits)")
    add("--batch-size", type=int, help="default: 128; 64 on digits")
    add("--view", help="view spec of all training (default: crop_flip)")
    add("--train-options", metavar="'...'", help="further options of logitstore train, for every model")
    add("--seeds", type=_numbers, metavar="0,1", help="run seeds of the students (default: 0)")
    add("--students", type=_words, metavar="A,B", help=f"default: {','.join(STUDENTS)}")
    add("--rows", dest="tables", type=_tables, metavar="IX,VII", help=f"of {', '.join(TABLES)}, or all (default: IX)")
    add("--store-epochs", type=int, help="epochs of views in a store, used again and again (default: --epochs)")
    add("--shared-store", action="store_true", default=None, help="one store for the students of all seeds")
    add("--freeze-copied", action="store_true", default=None, help="keep the copied blocks as the teacher has them")
    add("--teacher-checkpoint", dest="teacher_checkpoints", type=_checkpoint, action="append", metavar="[swin_t=]FILE",
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
    add("--out", type=Path, help="folder of the run (default: runs/swin_framework)")
    add("--time-limit", type=float, metavar="SECONDS", help=f"stop cleanly, up to {MARGIN:.0f} s before; exit code "
        f"{MORE_TO_DO} where more is to do; 0 runs nothing and reports what is done")  # fmt: skip
    return flags


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in _words(text))


def _tables(text: str) -> tuple[str, ...]:
    return TABLES if text == "all" else _words(text.upper())


def _checkpoint(text: str) -> tuple[str, str]:
    name, separator, file = text.partition("=")
    return (name, file) if separator else ("swin_t", text)


def setting_of(args: argparse.Namespace) -> Setting:
    """The setting that the flags describe; those that were not given keep their defaults."""
    names = [field.name for field in dataclasses.fields(Setting) if field.init]
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    if "teacher_checkpoints" in given:
        given["teacher_checkpoints"] = tuple(given["teacher_checkpoints"])
    return Setting(**{**(QUICK if args.quick else {}), **given})


def run(protocol: Protocol, folder: StepFolder, time_limit: float | None, jobs: int = 1) -> dict[str, Row]:
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


def show(found: Row) -> None:
    """Print the tables and what can and cannot be read from them."""
    print()
    print_table(found["rows"], report.columns(found["rows"]))
    for order in found["orders"]:
        same = "the paper's order" if order["same"] else "not the paper's order"
        print(f"\n{order['model']}, {same}: {order['found']} (the paper: {order['paper']})")
        for line in order["steps"]:
            print(f"  {line}")
    if found["models"]:
        print()
        print_table(found["models"], list(found["models"][0]))
    print("\nHow this run differs from the paper's:")
    print_table(found["setting"], ["what", "paper", "here"])
    if found["claim"]:
        print(f"\n{found['claim']}")


def main() -> None:
    """Run the protocol, or go on with it."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    args = parser().parse_args()
    try:
        protocol = Protocol.of(setting_of(args))
        with sigterm_unwinds(), StepFolder(protocol.setting.out) as folder:
            results = run(protocol, folder, args.time_limit, max(1, args.jobs))
            seconds = folder.seconds(list(protocol.steps.values()))
    except LogitStoreError as error:
        print(f"swin_framework: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("swin_framework: stopped by Ctrl-C; the same command goes on from there.", file=sys.stderr)
        sys.exit(130)
    found = report.summary(protocol, results, seconds)
    show(found)
    commands = {name: step.command for name, step in protocol.steps.items()}
    if not found["complete"]:
        print(f"\n{found['steps_done']} of {found['steps']} steps are done; the same command goes on from there.")
    finish("swin_framework", found, save=args.save and (found["complete"] or args.time_limit == 0),
           details={"commands": commands})  # fmt: skip
    if not found["complete"]:
        sys.exit(MORE_TO_DO)


if __name__ == "__main__":
    main()
