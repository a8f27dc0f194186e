"""MiniViT's ablations: what sharing costs, what transformations and each loss of the distillation bring back.

    python -m benchmarks.minivit                                      digits: it runs on a CPU, and claims nothing
    python -m benchmarks.minivit --data cifar100-train.npz --val-data cifar100-test.npz --size 64 --seeds 1,2 \\
        --teacher-init random --teacher-epochs 30 --jobs 4 --time-limit 570   on a GPU, again until it exits with 0

Tables 1 and 3 of the paper, row by row, beside the paper's numbers: the original model, shared weights (WS), with
transformations (WT), with distillation (WD), and all. Of each parameters, multiply-accumulates, speed and accuracy.

Every step is a command in a process of its own, printed before it runs; the same command again goes on where the last
one ended, whatever cut it off. Exit codes: 0 all is done; 2 unusable input or a step that failed; 3 the time limit came
first, and there is more to do; 130 and 143 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs as a file

from benchmarks.common import Row, print_table
from benchmarks.framework import session
from benchmarks.minivit_parts import report
from benchmarks.minivit_parts.protocol import MiniVitProtocol
from benchmarks.minivit_parts.rows import TABLES
from benchmarks.minivit_parts.setting import MATCHES, MiniVitSetting

QUICK = {
    "subset": 64,
    "epochs": 1,
    "batch_size": 32,
    "swin_args": ("embed_dim=16", "num_heads=1:2:2:4"),
    "deit_args": ("embed_dim=32", "num_heads=2", "patch_size=8"),
    "out": Path("runs/minivit-quick"),
}


def parser() -> argparse.ArgumentParser:
    """One flag for each field of ``MiniVitSetting``, with its sentence as help in fewer words."""
    flags = session.parser(__doc__.splitlines()[0], setting=MiniVitSetting, teacher="")
    add = flags.add_argument
    add("--rows", dest="tables", type=session.words, metavar="A,B", help=f"of {', '.join(TABLES)} (default: all)")
    add("--teacher", dest="teacher_name", help=f"who teaches: {', '.join(MATCHES)} (default: swin_t)")
    add("--swin-arg", dest="swin_args", type=str, action="append", metavar="NAME=VALUE",
        help="argument of every Swin's architecture, the teacher's too (default: narrow ones on digits)")  # fmt: skip
    add("--deit-arg", dest="deit_args", type=str, action="append", metavar="NAME=VALUE",
        help="argument of every DeiT's architecture (default: narrow ones on digits, else by size)")  # fmt: skip
    add("--match", help="layers compared, STUDENT:TEACHER,... (default: by the teacher's depth)")
    add("--store-epochs", type=int, help="epochs of views in a store, used again and again (default: --epochs)")
    return flags


def setting_of(args: argparse.Namespace) -> MiniVitSetting:
    """The setting that the flags describe."""
    for name in ("swin_args", "deit_args"):
        if getattr(args, name) is not None:
            setattr(args, name, tuple(getattr(args, name)))
    return session.setting_of(MiniVitSetting, args, QUICK)


def show(found: Row) -> None:
    """Print the tables and what can and cannot be read from them."""
    print()
    print_table(found["rows"], report.columns(found["rows"]))
    print(
        "\nWS: shared weights; WT: transformations; WD: distillation. GT: labels; pred, attn, hddn: eq. 9 to 11. "
        "speed: of the forward pass, base is 1."
    )
    for order in found["orders"]:
        print(f"\n{order['table']}: {order['agreeing']} of {order['pairs']} pairs stand as in the paper")
        print(f"  here:  {order['found']}\n  paper: {order['paper']}")
        for line in order["differences"]:
            print(f"  {line}")
    print("\nHow this run differs from the paper's:")
    print_table(found["setting"], ["what", "paper", "here"])
    print(f"\n{found['claim']}")


def main() -> None:
    """Run the protocol, or go on with it."""
    args = parser().parse_args()
    session.conduct("minivit", args, lambda: MiniVitProtocol.of(setting_of(args)), report.summary, show)


if __name__ == "__main__":
    main()
