"""From a teacher to trained students through a store, on the embedded digits, in less than ten minutes on two cores.

    python -m benchmarks.demo        (or: make demo)

Every step is a command of the command line, run as a process of its own and printed before it runs. What is trained and
for how long is fixed below and was not chosen for its result. Everything is made anew in ``runs/demo``.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs as a file

from benchmarks.common import Row, arguments, finish, print_table
from logitstore.errors import LogitStoreError

Word = str | int | Path
ROOT = Path(__file__).resolve().parents[1]
TINYVIT_TOPK = 10
"""K at which the store is compared with TinyViT's 4+4K bytes: digits has ten classes."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the demo trains and for how long."""

    teacher: str = "swin_t"
    """Made from random weights: there are no pretrained ones of digits."""
    teacher_epochs: int = 12
    """Passes of fine-tuning."""
    store_epochs: int = 4
    """Epochs in the store."""
    students: tuple[tuple[str, int], ...] = (("tinyvit_5m", 3), ("swin_n", 6))
    """Each student with its epochs, the same from labels and from the store."""
    shards_before_kill: int = 5
    """Committed shards after which the first dump is killed."""
    subset: int | None = None
    """Training images; None is all 1,437."""


FULL = Plan()
QUICK = Plan(teacher_epochs=1, store_epochs=2, students=(("swin_n", 1),), shards_before_kill=1, subset=512)


def say(text: str) -> None:
    """One remark of the demo's own."""
    print(f"\n{text}", flush=True)


def command(*words: Word) -> list[str]:
    """The command line of one ``logitstore`` command, which is printed."""
    text = [str(word) for word in words]
    print(f"\n$ logitstore {shlex.join(text)}", flush=True)
    return [sys.executable, "-m", "logitstore", *text, "--json"]


def run(*words: Word, expect: int = 0) -> Row:
    """Run one ``logitstore`` command to its end; progress and notes pass through.

    Returns:
        the object it printed, and ``wall_seconds``.
    """
    began = time.perf_counter()
    process = subprocess.run(command(*words), stdout=subprocess.PIPE, text=True, check=False)
    if process.returncode != expect:
        raise SystemExit(f"The command ended with exit code {process.returncode}; {expect} was expected.")
    result: Row = json.loads(process.stdout)
    return {**result, "wall_seconds": time.perf_counter() - began}


def run_and_kill(store: Path, shards: int, *words: Word) -> int:
    """Start a dump and kill it with SIGKILL once that many shards are committed.

    Returns:
        the shards that were committed when it was dead.
    """
    process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None and _committed(store) < shards:
            time.sleep(0.02)
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode != -signal.SIGKILL:
        raise SystemExit(f"The dump ended by itself with exit code {process.returncode}, before it could be killed.")
    return _committed(store)


def _committed(store: Path) -> int:
    return len([path for path in (store / "commits").glob("*.json") if path.name != "zarr.json"])


def make_teacher(plan: Plan, folder: Path) -> tuple[Path, Row]:
    """Fine-tune the teacher; its checkpoint and its row of the table."""
    out = folder / "teacher"
    subset = () if plan.subset is None else ("--subset", plan.subset)
    result = run("finetune", "--teacher", plan.teacher, "--epochs", plan.teacher_epochs, *subset, "--out", out)
    return Path(result["checkpoint"]), _model_row(plan.teacher, "teacher, labels", plan.teacher_epochs, result)


def make_store(plan: Plan, folder: Path, checkpoint: Path) -> tuple[Path, Row]:
    """Dump, killed once and resumed; the store and its part of the summary."""
    store = folder / "store"
    subset = () if plan.subset is None else ("--subset", plan.subset)
    words = ("dump", "--teacher", plan.teacher, "--topk", 100, "--checkpoint", checkpoint, "--store", store,
             "--epochs", plan.store_epochs, *subset)  # fmt: skip
    began = time.perf_counter()
    survived = run_and_kill(store, plan.shards_before_kill, *words)
    say(f"Killed with SIGKILL: {survived} shards were committed. The same command goes on from there:")
    result = run(*words)
    say(f"Resumed: {result['shards']} more shards, the store is {'whole' if result['complete'] else 'not whole'}.")
    info = run("info", store)
    return store, {
        "images_per_s": result["images_per_second"],
        "seconds": time.perf_counter() - began,
        "records": info["records"],
        "bytes_per_record": info["bytes_per_record"],
        "shards_before_kill": survived,
        "shards_after": result["shards"],
    }


def check_store(store: Path, folder: Path, checkpoint: Path) -> Row:
    """Verify the store, then a copy with one flipped bit."""
    report = run("verify", store, "--data", "digits", "--checkpoint", checkpoint)
    say(
        f"Whole: {report['records_checked']} records, {report['views_checked']} views replayed pixel for pixel, "
        f"the teacher run again on them differs by {report['kl']:.1e} nat."
    )
    copy = folder / "damaged-copy"
    shutil.copytree(store, copy)
    victim = flip_a_bit(copy)
    say(f"One bit of {victim.relative_to(copy)} in a copy was flipped:")
    damaged = run("verify", copy, expect=1)
    for error in damaged["errors"]:
        print(f"  {error}")
    return {"verify_ok": report["ok"], "views_checked": report["views_checked"], "kl": report["kl"],
            "damage_found": damaged["errors"]}  # fmt: skip


def flip_a_bit(store: Path) -> Path:
    """Flip one bit in the middle of the largest object of ``logp``; the file."""
    victim = max((path for path in (store / "logp" / "c").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0b1000
    victim.write_bytes(data)
    return victim


def train_students(plan: Plan, folder: Path, store: Path) -> list[Row]:
    """Each student from labels alone and from the store, with the same recipe."""
    rows = []
    subset = () if plan.subset is None else ("--subset", plan.subset)
    for student, epochs in plan.students:
        for kind, source in (("labels", ("--hard-labels-only", *subset)), ("store", ("--store", store))):
            out = folder / f"{student}-{kind}"
            result = run("train", "--student", student, *source, "--epochs", epochs, "--out", out)
            trained_on = "labels alone" if kind == "labels" else "store, no labels"
            rows.append(_model_row(student, trained_on, epochs, result))
    return rows


def _model_row(model: str, trained_on: str, epochs: int, result: Row) -> Row:
    accuracy: dict[str, Any] = result["accuracy"]
    low, high = accuracy["top1_interval"]
    return {
        "model": model,
        "trained on": trained_on,
        "epochs": epochs,
        "top-1 %": round(100 * accuracy["top1_share"], 1),
        "95% interval": f"{100 * low:.1f} to {100 * high:.1f}",
        "img/s": result["images_per_second"],
        "seconds": result["wall_seconds"],
        "interval": (low, high),
    }


def verdict(alone: Row, distilled: Row) -> str:
    """Whether the two intervals decide anything."""
    difference = distilled["top-1 %"] - alone["top-1 %"]
    if distilled["interval"][0] > alone["interval"][1]:
        outcome = "distilled is better"
    elif distilled["interval"][1] < alone["interval"][0]:
        outcome = "labels are better"
    else:
        outcome = "undecided, the intervals overlap"
    return f"{alone['model']}: from the store {difference:+.1f} points against labels alone: {outcome}."


def draw_sheet(store: Path, plan: Plan, out: Path) -> None:
    """The contact sheet; without matplotlib a sentence."""
    from logitstore import open_images, open_store
    from logitstore.report import contact_sheet

    try:
        path = contact_sheet(open_store(store), open_images("digits", subset=plan.subset), out)
    except LogitStoreError as error:
        say(str(error))
    else:
        say(f"Replayed views with what the teacher said of them: {path}")


def conclude(models: list[Row], store: Row, seconds: float) -> list[str]:
    """Print the table and what can and cannot be read from it; the verdicts."""
    print()
    print_table(models, ["model", "trained on", "epochs", "top-1 %", "95% interval", "img/s", "seconds"])
    print(
        f"\nStore: {store['records']} records, {store['bytes_per_record']:.1f} bytes each with everything, against "
        f"{4 + 4 * TINYVIT_TOPK} for 4+4K at K={TINYVIT_TOPK} (small stores pay most for their metadata); dumped at "
        f"{store['images_per_s']:.0f} img/s."
    )
    verdicts = [verdict(alone, distilled) for alone, distilled in zip(models[1::2], models[2::2], strict=True)]
    for line in verdicts:
        print(line)
    print(
        "\nDigits proves no gain elsewhere, and none is claimed: 360 test images, few epochs, and crops that hide the "
        "digit,\nwhere the teacher says so and a label cannot. What to look at: students from the store never saw a "
        f"label and\nnever met the teacher; the lines above say how they compare. Together {seconds:.0f} seconds."
    )
    return verdicts


def main() -> None:
    """Run the plan from start to end."""
    parser = arguments(__doc__.splitlines()[0])
    args = parser.parse_args()
    plan = QUICK if args.quick else FULL
    os.chdir(ROOT)  # so that commands are short to read and can be typed again
    folder = Path("runs") / ("demo-quick" if args.quick else "demo")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.perf_counter()
    checkpoint, teacher = make_teacher(plan, folder)
    store, dumped = make_store(plan, folder, checkpoint)
    checks = check_store(store, folder, checkpoint)
    students = train_students(plan, folder, store)
    draw_sheet(store, plan, folder / "views.png")
    seconds = time.perf_counter() - began
    models = [teacher, *students]
    verdicts = conclude(models, dumped, seconds)
    rows = [{name: value for name, value in model.items() if name != "interval"} for model in models]
    finish(
        "demo",
        {"seconds": seconds, "store": dumped, "checks": checks, "models": rows, "verdicts": verdicts},
        save=args.save,
    )


if __name__ == "__main__":
    main()
