"""Does what a record loses on paper cost a student anything? Students of one teacher, from all it says to hard labels.

    python -m benchmarks.quality                             digits: it runs on a CPU in minutes, and claims nothing
    python -m benchmarks.quality --data cifar100-train.npz --val-data cifar100-test.npz --size 64 --jobs 4 \\
        --teacher-init random --teacher-epochs 30 --time-limit 570    on a GPU, again until it exits with 0

For each seed the same initial weights and the same views, and targets from a live teacher, a dense store, what TinyViT
would keep, records cut at a floor, fewer epochs gone through again and again, labels, and some coarser cuts. Of each,
the bytes of a record, its divergence from the teacher, the student's accuracy and its agreement with the teacher; in
the end, how well the divergence predicts the student (TinyViT, Fig. 5, varies K alone and counts accuracy alone).

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
from benchmarks.quality_parts import report
from benchmarks.quality_parts.conditions import CONDITIONS
from benchmarks.quality_parts.numbers import sentence
from benchmarks.quality_parts.protocol import QualityProtocol
from benchmarks.quality_parts.setting import CYCLED_SHARE, QualitySetting

QUICK = {
    "subset": 96,
    "epochs": 2,
    "batch_size": 32,
    "seeds": (0,),
    "teacher_name": "test_vit",
    "conditions": tuple(name for name in CONDITIONS if name not in ("k2", "k5", "floor0.1")),
    "out": Path("runs/quality-quick"),
}


def parser() -> argparse.ArgumentParser:
    """One flag for each field of ``QualitySetting``, with its sentence as help in fewer words."""
    flags = session.parser(__doc__.splitlines()[0], setting=QualitySetting, teacher="")
    add = flags.add_argument
    add("--teacher", dest="teacher_name", help="who speaks (default: tinyvit_21m; tinyvit_5m on digits)")
    add("--student", dest="student_name", help="who learns (default: tinyvit_5m; test_vit on digits)")
    add("--conditions", type=session.words, metavar="A,B", help=f"default: {','.join(CONDITIONS)}")
    add("--store-epochs", type=int,
        help=f"epochs of views in the store that is cycled (default: --epochs / {CYCLED_SHARE})")  # fmt: skip
    return flags


def setting_of(args: argparse.Namespace) -> QualitySetting:
    """The setting that the flags describe."""
    return session.setting_of(QualitySetting, args, QUICK)


def show(found: Row) -> None:
    """Print the table, the correlations, and what cannot be read from them."""
    teacher = found["teacher"]
    accuracy = f"{teacher['top-1 %']} ({teacher['95% interval']}) % top-1" if "top-1 %" in teacher else "not there yet"
    print(
        f"\nTeacher {teacher['name']}: {accuracy} on {found['test_images']:,} images. Student {found['student']}, "
        f"{found['epochs']} epochs of {found['training_images']:,} images of {found['data']} at {found['size']} px, "
        f"{found['view']}; the cycled store holds {found['cycled_epochs']} of them.\n"
    )
    for columns in (report.RECORDS, report.STUDENTS):
        print_table(found["rows"], [name for name in columns if any(name in row for row in found["rows"])])
        print()
    print(
        "KL: of the records, KL(dense || decoded) in nat; of the student, KL(teacher || student) on test images. Bytes "
        "include metadata, most of it the commits of small shards. 4+4K: TinyViT's, uncompressed. sd, and what stands "
        "in brackets, over seeds."
    )
    for which, correlated in found["correlations"].items():
        print(f"\nOver conditions that differ in what is kept alone, {which}:")
        for what, value in correlated.items():
            print(f"  {sentence(what, value)}")
    for name, same in found["packed_same_students"].items():
        if same is not None:
            print(f"\n{name}: the students of {same['same']} of {same['seeds']} seeds are the same to the bit.")
    if found["claim"]:
        print(f"\n{found['claim']}")


def main() -> None:
    """Run the protocol, or go on with it."""
    args = parser().parse_args()
    session.conduct("quality", args, lambda: QualityProtocol.of(setting_of(args)), report.summary, show)


if __name__ == "__main__":
    main()
