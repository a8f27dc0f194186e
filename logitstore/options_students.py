"""The options of the commands about students: as ``options``, part of ``cli``. Imports nothing heavy."""

from __future__ import annotations

import click

from logitstore.console import Quantity, adding, count, option
from logitstore.options import of_train

_CONTRACT = (
    option("--from", "start", default="tinyvit_21m", help="The TinyViT to contract."),
    option("--max-params", type=Quantity(), help="The most parameters, as in 11M."),
    option("--min-throughput", metavar="N|Nx",
           help="The fewest images a second on this machine, as in 2000, or times the start's, as in 1.5x."),
    option("--steps", default=4, type=count, help="Steps in which the bounds tighten, geometrically."),
    option("--candidates", default=6, type=count, help="Candidates to train in each step."),
    option("--epochs", default=2, type=count, help="Passes over the data of each candidate's training."),
    *of_train("store", "weights", "data", "val_data", "subset", "topk", "view", "size", "shuffle", "recipe", "base_lr"),
    option("--drop-path", type=float, help="Rate of stochastic depth.  [default: the recipe's for the start]"),
    option("--seed", default=0, type=click.IntRange(min=0), help="Which candidates are drawn; seed of all trainings."),
    *of_train("accumulate", "skip_bad", "exclude"),
    option("--out", help="The folder of the search.  [default: runs/contract/START-DATA]"),
    option("--picture", help="Picture to draw, of accuracy against parameters and speed: .png, .pdf or .svg."),
)

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

contract_options = adding(_CONTRACT)
export_options = adding(_EXPORT)
correlation_options = adding(_CORRELATION)
models_options = adding(_MODELS)
