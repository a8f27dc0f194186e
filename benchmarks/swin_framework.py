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
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs as a file

from benchmarks.common import Row, print_table
from benchmarks.framework import report, session
from benchmarks.framework.protocol import Protocol
from benchmarks.framework.rows import STUDENTS, TABLES, TEACHER
from benchmarks.framework.setting import Setting

QUICK = {"subset": 96, "epochs": 2, "batch_size": 32, "students": ("swin_n",), "out": Path("runs/swin_framework-quick")}


def parser() -> argparse.ArgumentParser:
    """One flag for each field of ``Setting``, with its sentence as help in fewer words."""
    flags = session.parser(__doc__.splitlines()[0], setting=Setting, teacher=TEACHER)
    add = flags.add_argument
    add("--students", type=session.words, metavar="A,B", help=f"default: {','.join(STUDENTS)}")
    add("--rows", dest="tables", type=_tables, metavar="IX,VII", help=f"of {', '.join(TABLES)}, or all (default: IX)")
    add("--store-epochs", type=int, help="epochs of views in a store, used again and again (default: --epochs)")
    add("--shared-store", action="store_true", default=None, help="one store for the students of all seeds")
    add("--freeze-copied", action="store_true", default=None, help="keep the copied blocks as the teacher has them")
    return flags


def _tables(text: str) -> tuple[str, ...]:
    return TABLES if text == "all" else session.words(text.upper())


def setting_of(args: argparse.Namespace) -> Setting:
    """The setting that the flags describe."""
    return session.setting_of(Setting, args, QUICK)


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
    args = parser().parse_args()
    session.conduct("swin_framework", args, lambda: Protocol.of(setting_of(args)), report.summary, show)


if __name__ == "__main__":
    main()
