"""The step of ``benchmarks/minivit.py`` that is no command of ``logitstore``: an architecture's size, work and speed.

python -m benchmarks.minivit_parts.commands --help
"""

from __future__ import annotations

from typing import Any

import click

from logitstore import process
from logitstore.console import Commands, count, json_option, option, show


@click.group(cls=Commands)
def main() -> None:
    """Steps of benchmarks/minivit.py."""


@main.command()
@click.argument("models", nargs=-1, required=True)
@option("--size", required=True, type=count, help="Side of the images in pixels.")
@option("--classes", required=True, type=count, help="Number of classes.")
@option("--batch-size", type=count, help="Images in a timed pass.  [default: 8 on a CPU, else 256]")
@option("--device", default="auto", help="As for logitstore models.")
@option("--dtype", default="auto", help="As for logitstore models.")
@json_option
def figures(
    models: tuple[str, ...], size: int, classes: int, batch_size: int | None, device: str, dtype: str, as_json: bool
) -> None:
    """Parameters, MACs and speed of MODELS, each a name and arguments: 'mini_swin_t share=2 attn_transform=false'.

    The first one is timed alone, the others in turns with it.
    """
    import torch

    from logitstore.catalogue import count_made
    from logitstore.device import dtype_name, resolve_device, resolve_dtype
    from logitstore.models import build_model
    from logitstore.speed import MEASURED_BATCH, TimedModel, device_name, relative_speed
    from students import build_arguments, parse_arguments

    where = resolve_device(device)
    precision = resolve_dtype(dtype, where)
    shown = batch_size or MEASURED_BATCH.get(where.type, 8)
    found: list[dict[str, Any]] = []
    first: TimedModel | None = None
    for described in models:
        name, *arguments = described.split()
        model_args = build_arguments(name, size, parse_arguments(arguments))
        model = build_model(name, num_classes=classes, size=size, model_args=model_args)
        parameters, macs = count_made(model, size)
        timed = TimedModel(model, size=size, batch_size=shown, device=where, dtype=precision)
        speed = {"images_per_second": timed.images_per_second()} if first is None else {}
        speed |= {"relative_speed": 1.0 if first is None else relative_speed(timed, first)}
        first = first or timed
        found.append({"model": described, "parameters": parameters, "macs": macs, **speed})
    measured = {"batch_size": shown, "device": device_name(where), "dtype": dtype_name(precision)}
    measured |= {"threads": torch.get_num_threads()} if where.type == "cpu" else {}
    show({"models": found, "measured": measured}, as_json)


if __name__ == "__main__":
    process.prepare()
    main()
