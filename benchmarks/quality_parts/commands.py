"""The steps of ``benchmarks/quality.py`` that are no commands of ``logitstore``: cutting, weighing, a live teacher.

python -m benchmarks.quality_parts.commands --help
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from logitstore import process
from logitstore.console import Commands, count, json_option, machine_options, option, show
from logitstore.options import train_options
from logitstore.progress import Progress


@click.group(cls=Commands)
def main() -> None:
    """Steps of benchmarks/quality.py."""


@main.command()
@click.argument("dense")
@click.argument("out")
@option("--topk", type=count, help="Most classes kept.  [default: all]")
@option("--topk-mass", type=float, help="Instead: as few classes as hold this much in the mean.")
@option("--floor", default=0.0, help="Least probability of a class that is kept.")
@option("--floor-mass", type=float, help="Instead: as high a floor as keeps this much in the mean.")
@option("--values", type=click.Choice(["q8", "f16"]), default="q8", help="As for dump.")
@option("--epochs", type=count, help="How many of the first epochs are kept.  [default: all]")
@option("--chosen-on", help="The dense store on which a mass is measured.  [default: DENSE]")
@json_option
def cut(
    dense: str, out: str, topk: int | None, topk_mass: float | None, floor: float, floor_mass: float | None,
    values: Any, epochs: int | None, chosen_on: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Make a smaller store OUT of the store DENSE, and weigh it."""
    from benchmarks.quality_parts.recut import Kept, recut, weigh
    from logitstore.cuts import Cut
    from logitstore.store import open_store

    whole = open_store(dense)
    if topk_mass is not None or floor_mass is not None:
        views = Kept.of(open_store(chosen_on or dense))
        topk = topk if topk_mass is None else views.topk(topk_mass)
        floor = floor if floor_mass is None else views.floor(floor_mass)
    chosen = Cut(topk=min(topk or whole.num_classes, whole.num_classes), floor=floor, values=values)
    show(weigh(recut(whole, Path(out), chosen, epochs), whole), as_json)


@main.command()
@click.argument("store")
@click.argument("dense")
@json_option
def weigh(store: str, dense: str, as_json: bool) -> None:
    """What STORE takes, and how far it is from DENSE, which it was made of."""
    from benchmarks.quality_parts.recut import weigh as run
    from logitstore.store import open_store

    show(run(open_store(store), open_store(dense)), as_json)


@main.command()
@click.argument("store")
@option("--teacher", required=True, help="Who made the store.")
@option("--teacher-checkpoint", required=True, help="Its weights.")
@option("--data", default="digits", help="As for dump.")
@option("--views", default=512, type=count, help="How many views of the first epoch it sees again.")
@machine_options
@json_option
def listen(
    store: str, teacher: str, teacher_checkpoint: str, data: str, views: int, as_json: bool, **machine: Any
) -> None:
    """How far the records of STORE are from what the teacher says of the same views now."""
    from benchmarks.quality_parts.live import heard
    from logitstore.device import Compute
    from logitstore.images import open_images
    from logitstore.store import open_store
    from logitstore.teacher import load_teacher

    opened, compute = open_store(store), Compute.of(**machine)
    spoken = load_teacher(
        teacher,
        checkpoint=teacher_checkpoint,
        size=opened.manifest.view["size"],
        device=compute.device,
        dtype=compute.dtype,
    )
    show(heard(opened, spoken, open_images(data), views=views, workers=compute.workers), as_json)


@main.command()
@option("--live-teacher", required=True, help="Who speaks in every step.")
@option("--live-checkpoint", required=True, help="Its weights.")
@train_options
@machine_options
@json_option
def live(live_teacher: str, live_checkpoint: str, config: str | None, as_json: bool, **options: Any) -> None:
    """Train as logitstore train does, against a live teacher on the views of --store."""
    from benchmarks.quality_parts.live import with_live_teacher
    from logitstore.train import TrainConfig, train

    opener = with_live_teacher(live_teacher, live_checkpoint)
    show(train(TrainConfig(**options), Progress, opener=opener).to_dict(), as_json)


if __name__ == "__main__":
    process.prepare()
    main()
