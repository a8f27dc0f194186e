"""The options of the commands about students: as ``options``, part of ``cli``. Imports nothing heavy."""

from __future__ import annotations

import click

from logitstore.console import adding, count, option

_EXPORT = (
    option("--checkpoint", required=True, help="File of weights, or the folder of a run."),
    option("--format", default="safetensors", type=click.Choice(["safetensors", "onnx", "torch_export"]),
           help="For timm; for any ONNX runtime; for torch without the model's code."),
    option("--model", help="Which model the weights are of.  [default: what their card says]"),
    option("--out", help="The folder to write.  [default: runs/export/RUN-FORMAT]"),
    option("--size", type=count, help="Side of the images in pixels.  [default: what the card says]"),
)

_CORRELATION = (
    option("--teacher", required=True, help="Model file with its card, or the folder of a run."),
    option("--student", required=True, help="Model file with its card; its classes are compared."),
    option("--baseline", help="Model file with its card: the student trained without the teacher, for example."),
    option("--data", default="digits", help="The data set, with labels."),
    option("--split", default="val", help="The split of it, where it has splits."),
    option("--per-class", default=8, type=count, help="Images of each class: its first ones."),
    option("--out", help="Picture of the maps to write: .png, .pdf or .svg."),
)

_MODELS = (
    option("--measure", is_flag=True, help="Also time the forward pass on this machine."),
    option("--num-classes", type=count, help="Classes.  [default: 100 for Swin, else 1000, as the papers count]"),
    option("--size", type=count, help="Side of the images in pixels.  [default: each model's own]"),
    option("--batch-size", type=count, help="Images in a timed pass.  [default: 8 on a CPU, 256 on a GPU]"),
    option("--device", default="auto", help="cpu, cuda, cuda:1, …; auto takes a GPU if there is one."),
    option("--dtype", default="auto", help="float32, bfloat16 or float16; auto is bfloat16 on a GPU."),
)

export_options = adding(_EXPORT)
correlation_options = adding(_CORRELATION)
models_options = adding(_MODELS)
