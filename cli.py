"""The ``logitstore`` command: parse, one library call, print. No logic lives here.

Every option is a field of the command's configuration, under the same name and with the same default, so the Python
call and the command line cannot drift apart (a test compares them). Libraries load inside the commands, so ``--help``
is quick. Results go to standard output, notes and progress to standard error. Exit codes: 0 done; 1 ``verify`` found
damage or a gap, or another of several processes failed; 2 unusable input, and one sentence says what and what to do;
130 and 143 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from logitstore import __version__, options_students
from logitstore import options as options_of
from logitstore.console import Commands, json_option, machine_options, show, typed
from logitstore.launch import Launch
from logitstore.progress import Progress


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="logitstore")
def main() -> None:
    """Run the teacher once; distil vision transformers from disk for ever.

    \b
    Example, from a teacher to a student on the embedded digits:
      logitstore finetune --teacher swin_t
      logitstore dump --teacher swin_t --topk 100
      logitstore train --student tinyvit_5m
    """


@main.command(short_help="Pack images, small, to be read quickly in any order.")
@click.argument("out")
@options_of.pack_options
@json_option
def pack(as_json: bool, **options: Any) -> None:
    """Pack images once into large, checksummed shards, which every --data takes.

    A store dumped from packed images replays from them alone. The same command goes on where it was stopped.

    \b
    Example:
      logitstore pack --data /data/imagenet /data/imagenet-256
    """
    from logitstore import pack as room

    show(room.pack(room.PackConfig(**options), Progress).to_dict(), as_json)


@main.command(short_help="Train a teacher on labels.")
@options_of.finetune_options
@machine_options
@json_option
def finetune(as_json: bool, **options: Any) -> None:
    """Train or fine-tune a teacher on labels; dump finds what it leaves.

    The same command again resumes the run.

    \b
    Example:
      logitstore finetune --teacher swin_t --data /data/flowers --epochs 30
    """
    from logitstore import finetune as room

    with Launch.from_environment().alike():
        config = room.FinetuneConfig(**options)
    show(room.finetune(config, Progress).to_dict(), as_json)


@main.command(short_help="What a store will cost and be worth, before the run.")
@options_of.plan_options
@machine_options
@json_option
def plan(as_json: bool, **options: Any) -> None:
    """Show a sample of views to the teacher; tell bytes, divergence, hours of a store, and the command that makes it.

    Options that may be repeated name everything to be tried.

    \b
    Example:
      logitstore plan --teacher swin_l --data /data/imagenet --epochs 300 --out plan.png
      logitstore plan --teacher swin_l --data /data/imagenet --topk 100 --topk 200 --target-kl 0.01
    """
    from logitstore import plan as room

    result = room.plan(room.PlanConfig(**options), Progress)
    show(result.to_dict() if as_json else result.lines(), as_json)


@main.command(short_help="Run the teacher once and keep what it says of every view.")
@options_of.dump_options
@machine_options
@json_option
def dump(as_json: bool, **options: Any) -> None:
    """Run the teacher once per epoch and keep its top classes and the seeds of the views.

    The same command again makes what is missing, from any shard on. Several processes may share the work.

    \b
    Example:
      logitstore dump --teacher swin_t --topk 100 --data /data/imagenet --epochs 30
      torchrun --nproc-per-node 8 -m logitstore dump --teacher swin_t --data /data/imagenet --epochs 30
      logitstore dump --teacher swin_t --data /data/imagenet --epochs 30 --shards "$SLURM_ARRAY_TASK_ID/16"
      logitstore dump --teacher convnext_large --data /data/imagenet --views-from /stores/swin_l
    """
    from logitstore import dump as room

    with Launch.from_environment().alike():
        config = room.DumpConfig(**options)
    show(room.dump(config, Progress).to_dict(), as_json)


@main.command(short_help="Pack a store into fewer bytes, or unpack it again.")
@click.argument("store")
@click.argument("out")
@options_of.convert_options
@json_option
def convert(as_json: bool, **options: Any) -> None:
    """Write the complete epochs of STORE in another form to OUT, without loss: packed or standard.

    train, info, verify and audit take a packed store just the same; dump goes on with the standard one. The same
    command again adds what was dumped since.

    \b
    Example:
      logitstore convert /stores/swin_l-imagenet /stores/swin_l-imagenet-packed
    """
    from logitstore import convert as room

    show(room.convert(room.ConvertConfig(**options), Progress).to_dict(), as_json)


@main.command(short_help="Distil a student from a store, or train it on labels.")
@options_of.train_options
@machine_options
@json_option
def train(config: str | None, as_json: bool, **options: Any) -> None:
    """Distil a student from a store, with no teacher loaded but --teacher-online; or train it on labels.

    Prints the effective recipe first. The same command again resumes the run; its run.yaml repeats it elsewhere.

    \b
    Example:
      logitstore train --student tinyvit_21m --store /stores/swin_l-imagenet --data /data/imagenet --epochs 300
      torchrun --nproc-per-node 8 -m logitstore train --student tinyvit_21m --data /data/imagenet --epochs 300
      logitstore train --student tinyvit_5m --data /data/imagenet --store /stores/swin_l --store /stores/convnext_l
      logitstore train --config runs/train/tinyvit_21m-imagenet/run.yaml --seed 1 --out runs/train/seed1
    """
    from logitstore import train as room

    with Launch.from_environment().alike():
        whole = room.TrainConfig(**options) if config is None else room.TrainConfig.from_yaml(config, **typed(options))
    show(room.train(whole, Progress).to_dict(), as_json)


@main.command("eval", short_help="Accuracy of a model, with intervals and comparisons.")
@options_of.eval_options
@machine_options
@json_option
def evaluate(as_json: bool, **options: Any) -> None:
    """Top-1 and top-5 of a teacher or a student with 95% intervals; agreement with a teacher, gains over a baseline.

    \b
    Example:
      logitstore eval --checkpoint runs/train/tinyvit_21m-digits --teacher runs/finetune/swin_t-digits
    """
    from logitstore import evaluate as room

    result = room.evaluate(room.EvalConfig(**options), Progress)
    show(result.to_dict() if as_json else result.lines(), as_json)


@main.command(short_help="Find hard samples: images whose label the teacher doubts.")
@click.argument("store")
@options_of.audit_options
@json_option
def audit(as_json: bool, **options: Any) -> None:
    """Find hard samples in a store: images whose label lies outside the teacher's top 5 in most views.

    Leaves a report that train --exclude takes, and a contact sheet.

    \b
    Example:
      logitstore audit /stores/swin_l-imagenet --data /data/imagenet
    """
    from logitstore.report import audit as room

    show(room.audit(room.AuditConfig(**options), Progress).to_dict(), as_json)


@main.command(short_help="What a store holds, and how much of it is there.")
@click.argument("store")
@json_option
def info(store: str, as_json: bool) -> None:
    """What a store holds: teacher, data set, views, sizes, and how much of it is there.

    \b
    Example:
      logitstore info runs/dump/swin_t-digits --json
    """
    from logitstore.store import open_store

    show(open_store(store).info(), as_json)


@main.command(short_help="Check a store (bytes, views, teacher) or packed images.")
@click.argument("store")
@options_of.verify_options
@machine_options
@json_option
def verify(as_json: bool, **options: Any) -> None:
    """Recompute every checksum; with --data replay views, with --checkpoint re-run the teacher.

    STORE may also be a folder of packed images. Exit code 0: whole. 1: damaged or incomplete. 2: unusable input.

    \b
    Example:
      logitstore verify runs/dump/swin_t-digits --data digits
    """
    from logitstore import recheck as room

    report = room.verify(room.VerifyConfig(**options), Progress)
    show(report.to_dict(), as_json)
    sys.exit(0 if report.ok else 1)


@main.command(short_help="How models relate the classes, as maps.")
@options_students.correlation_options
@machine_options
@json_option
def correlation(as_json: bool, **options: Any) -> None:
    """How models relate the classes: maps of Pearson correlations, and their distance to the teacher's.

    \b
    Example:
      logitstore correlation --teacher runs/finetune/swin_t-digits --student runs/train/tinyvit_5m-digits --out maps.png
    """
    from logitstore.report.correlation import CorrelationConfig, correlate

    result = correlate(CorrelationConfig(**options), Progress)
    show(result.to_dict() if as_json else result.lines(), as_json)


@main.command(short_help="Parameters, multiply-accumulates and speed of models.")
@click.argument("names", nargs=-1)
@options_students.models_options
@json_option
def models(as_json: bool, **options: Any) -> None:
    """Parameters, multiply-accumulates and speed of models: the papers' students and teachers, or those named.

    NAMES are short or timm names, with * and ? for several. What the papers print stands beside it.

    \b
    Example:
      logitstore models swin_n 'tinyvit_*' --measure
    """
    from logitstore.catalogue import ModelsConfig, list_models

    result = list_models(ModelsConfig(**options), Progress)
    show(result.to_dict() if as_json else result.table(), as_json)


@main.command(short_help="A smaller TinyViT within bounds, found step by step.")
@options_students.contract_options
@machine_options
@json_option
def contract(as_json: bool, **options: Any) -> None:
    """Contract a TinyViT to fewer parameters and more images a second, distilling each candidate from the same store.

    The same command again goes on with the search in its folder.

    \b
    Example:
      logitstore contract --from tinyvit_21m --data /data/imagenet --store /stores/swin_l-imagenet --max-params 11M
    """
    from logitstore import contract as room

    result = room.contract(room.ContractConfig(**options), Progress)
    show(result.to_dict() if as_json else result.lines(), as_json)


@main.command(short_help="A student as a file for elsewhere: timm, ONNX, torch.")
@options_students.export_options
@json_option
def export(as_json: bool, **options: Any) -> None:
    """Write a student for use elsewhere, read it back, compare its logits, and describe it on a model card.

    \b
    Example:
      logitstore export --checkpoint runs/train/tinyvit_5m-digits --format onnx
    """
    from logitstore import export as room

    show(room.export(room.ExportConfig(**options), Progress).to_dict(), as_json)
