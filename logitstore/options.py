"""The options of the commands that have many: what stands here is part of ``cli``. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from logitstore.console import Numbers, Pair, adding, count, listed, one_or_several, option, several

_PACK = (
    option("--data", required=True, help="A folder, FILE.npz, FILE.tar, a timm data set name, also of a stream."),
    option(
        "--split", help="Split to pack, or NAME=ITS-NAME as val=validation.  [default: train, and val if there is one]"
    ),
    option("--short-side", default=256, type=count, help="Scale longer short sides down to so many pixels; none up."),
    option("--quality", default=90, type=click.IntRange(1, 100), help="Quality of the JPEGs."),
    option("--shard-mib", default=256, type=count, help="Size of a shard in MiB; decides no pixel."),
    option("--subset", type=count, help="Use only this many samples, evenly spaced; of a stream the first ones."),
    option("--skip-bad", is_flag=True, help="Leave out images that do not decode."),
    option("--workers", type=count, help="Threads that decode, scale and encode.  [default: one per core]"),
)

_FINETUNE = (
    option("--teacher", required=True, help="swin_t, swin_b, …, or any timm model."),
    option("--data", default="digits", help="A folder, FILE.npz, FILE.tar, a timm data set name, or digits."),
    option("--val-data", help="Data set to measure accuracy on.  [default: the val split of --data]"),
    option("--checkpoint", help="Weights to start from; a classifier of other classes is replaced."),
    option(
        "--pretrained/--no-pretrained", default=None, help="Start from timm's weights.  [default: except on digits]"
    ),
    option("--freeze-backbone", is_flag=True, help="Train the classifier alone."),
    option("--epochs", type=count, help="Passes over the data.  [default: 12 on digits, else 30]"),
    option("--warmup-epochs", default=1.0, help="Length of the linear warm-up, at most a fifth of the run."),
    option("--lr", type=float, help="Peak learning rate.  [default: 5e-4; 1e-4 from given weights; 1e-3 frozen]"),
    option("--weight-decay", default=0.05, help="AdamW's decoupled decay."),
    option("--drop-path", default=0.1, help="Rate of stochastic depth, for models that have it."),
    option("--label-smoothing", default=0.0, help="Mass of the label spread over all classes."),
    option("--ema-decay", type=float, help="Decay of the average of the weights.  [default: a tenth of the run]"),
    option("--view", help="View spec, as for dump.  [default: crop_flip; on digits gentler]"),
    option("--size", type=count, help="Side of the views in pixels.  [default: 32 on digits, else 224]"),
    option("--subset", type=count, help="Use only this many samples, evenly spaced."),
    option("--seed", default=0, type=click.IntRange(min=0), help="Run seed: initial weights, views, order, drop path."),
    option("--out", help="The run's folder.  [default: runs/finetune/TEACHER-DATA, where dump looks]"),
    option("--fresh", is_flag=True, help="Start anew where the folder holds a run, instead of resuming it."),
    option("--tensorboard/--no-tensorboard", default=True, help="Write TensorBoard events."),
)

# What dump and plan share: the fields of InferenceConfig.
_TEACHER = (
    option("--teacher", required=True, help="swin_t, swin_b, …, any timm model, or module:function."),
    option("--checkpoint", help="Its weights.  [default: what finetune left, else timm's pretrained ones]"),
    option("--data", default="digits", help="A folder, FILE.npz, FILE.tar, a timm data set name, or digits."),
)
_VIEW = (
    option("--size", type=count, help="Side of the views in pixels.  [default: 32 on digits, else 224]"),
    option(
        "--view", help="tinyvit, crop_flip, a YAML file of view-spec fields, or module:function.  [default: tinyvit]"
    ),
    option("--seed", type=click.IntRange(min=0), help="Run seed: order and views depend on it.  [default: 0]"),
)
_SHOWN = (
    option("--subset", type=count, help="Use only this many samples, evenly spaced."),
    option("--skip-bad", is_flag=True, help="Images that do not decode become empty records of weight 0."),
    option("--compile", is_flag=True, help="Run the teacher through torch.compile; gives another store."),
)

_DUMP = (
    *_TEACHER,
    option("--topk", default=100, type=count, help="Most classes kept per view."),
    option("--store", help="Where the store lies or will lie.  [default: runs/dump/TEACHER-DATA]"),
    option("--views-from", help="A store whose views this teacher sees, too: same order, seeds, view spec, size."),
    option("--epochs", type=count, help="Epochs that the store holds; may grow later.  [default: 4 on digits]"),
    option(
        "--floor",
        type=float,
        help="Classes less probable than this are not kept; 0 keeps all.  [default: 1e-3; 0 with --gain, --target-kl]",
    ),
    option("--mass", default=1.0, help="Only the fewest classes that hold this probability are kept; 1 keeps all."),
    option("--gain", default=0.0, help="Classes are kept while each lowers the KL by so many nat; 0 keeps all."),
    option("--target-kl", type=float, help="Find, on a sample of views, the gain that costs so many nat of KL."),
    option(
        "--values",
        default="q8",
        type=click.Choice(["q8", "q4", "q2", "f16"]),
        help="Log-probabilities: steps of 1/8, 1/4 or 1/2 nat, or float16.",
    ),
    option("--logz", is_flag=True, help="Also keep the log-sum-exp, so that logits come back."),
    *_VIEW,
    option("--start-epoch", default=0, type=click.IntRange(min=0), help="First epoch to make."),
    option("--shard-size", type=count, help="Positions per shard, a power of two.  [default: by size]"),
    option(
        "--shards", metavar="I/N", help="Make only part I of N, 0 <= I < N: every N-th shard.  [default: all shards]"
    ),
    *_SHOWN,
)

_PLAN = (
    *_TEACHER,
    option("--sample", default=2000, type=count, help="Views to show to the teacher."),
    option("--views", default=5, type=count, help="Views of each image of the sample."),
    option("--epochs", default=300, type=count, help="Epochs of the training run that the store is for."),
    option("--target-kl", default=0.03, help="Mean divergence from the teacher, in nat, that is good enough."),
    option("--topk", default=(5, 10, 20, 50, 100, 200), multiple=True, type=count, help="Numbers of classes to try."),
    option("--floor", default=(0.0, 1e-4, 1e-3), multiple=True, help="Floors to try, besides the one for the target."),
    option("--mass", default=(0.9, 0.99), multiple=True, help="Masses to try, besides the one for the target."),
    option("--gain", default=(1e-3, 1e-2), multiple=True, help="Gains to try, besides the one for the target."),
    option(
        "--values", default=("q8", "q4", "q2", "f16"), multiple=True, type=click.Choice(["q8", "q4", "q2", "f16"]),
        help="Forms of log-probabilities to try.",
    ),
    option(
        "--codec", default=("standard", "packed"), multiple=True, type=click.Choice(["standard", "packed"]),
        help="Codecs to try: what dump writes, and what convert makes of it.",
    ),
    option("--out", help="Picture to draw, of divergence against bytes: .png, .pdf or .svg."),
    *_VIEW,
    *_SHOWN,
)

_CONVERT = (
    option(
        "--codec",
        default="packed",
        type=click.Choice(["packed", "standard"]),
        help="packed is small, standard is what dump writes and any zarr reader decodes.",
    ),
    option("--base-epochs", type=count, help="Epochs that are a packed store's model, at most 8.  [default: 4]"),
    option("--workers", type=count, help="Threads that convert, each a shard.  [default: one per core]"),
)

_TRAIN = (
    option("--config", help="Repeat a run from its run.yaml, or from options in a YAML file; flags override."),
    option("--student", default="tinyvit_21m", help="tinyvit_5m, swin_n, deit_tiny, …, or any timm model."),
    option("--student-arg", "student_args", metavar="NAME=VALUE", multiple=True, callback=several,
           help="Argument of its architecture, as embed_dims=64:128:160:320.  [default: as the name says]"),
    option("--share", metavar="K|all", help="Blocks of a MiniViT that share weights.  [default: as the name says]"),
    option("--store", multiple=True, callback=one_or_several,
           help="The store to learn from; several: their mean.  [default: the one of this data under runs/dump]"),
    option("--weights", type=Numbers(example="0.5,0.5"),
           help="Weights of several stores in the mean, in their order.  [default: the same for all]"),
    option("--data", default="digits", help="The data set that the store was made of."),
    option("--val-data", help="Data set to validate on.  [default: the val split of --data]"),
    option("--subset", type=count, help="Use only this many samples.  [default: as many as the store was made of]"),
    option("--hard-labels-only", is_flag=True, help="Train on the labels with the same recipe, without a store."),
    option("--topk", type=count, help="Read at most this many classes of each record."),
    option(
        "--view", help="View spec; needed for a store of your own transform.  [default: the store's or the recipe's]"
    ),
    option("--size", type=count, help="Side of the views in pixels.  [default: the recipe's, else the store's]"),
    option("--shuffle", type=click.Choice(["shards"]), help="Visit shards in an order that depends on the run seed."),
    option(
        "--recipe",
        help="tinyvit_21k_distill, tinyvit_21k_to_1k, tinyvit_1k_scratch, tinyvit_1k_distill, tinyvit_384, "
        "tinyvit_512, swin_framework, minivit_swin, minivit_deit, minivit_swin_384, minivit_deit_384 or digits.  "
        "[default: digits on digits, else tinyvit_1k_distill]",
    ),
    option("--epochs", type=count, help="Passes over the data.  [default: the recipe's, as for all that follow]"),
    option("--warmup-epochs", type=float, help="Length of the linear warm-up."),
    option("--base-lr", type=float, help="Peak learning rate per 512 images of the batch."),
    option("--base-min-lr", type=float, help="Final learning rate per 512 images of the batch."),
    option("--base-warmup-lr", type=float, help="First learning rate per 512 images of the batch."),
    option("--weight-decay", type=float, help="AdamW's decoupled decay."),
    option("--clip-grad", type=float, help="Largest norm of the gradient."),
    option("--drop-path", type=float, help="Rate of stochastic depth."),
    option("--layer-decay", type=float, help="Factor of the learning rate from each block to the one before it."),
    option("--label-smoothing", type=float, help="For hard labels only."),
    option("--bn-eval/--no-bn-eval", default=None, help="Keep BatchNorm in eval mode."),
    option("--ema-decay", type=float, help="Decay of the average of the weights that is validated and saved."),
    option("--mixup", type=float, help="Alpha of Mixup in runs without a store; stored views are as dumped."),
    option("--cutmix", type=float, help="Alpha of CutMix, likewise."),
    option("--betas", type=Pair(example="0.9:0.999"), help="AdamW's decay rates of the two moments."),
    option("--eps", type=float, help="AdamW's term in the denominator."),
    option(
        "--distillation",
        type=click.Choice(["cross_entropy", "mse", "kl", "none"]),
        help="Loss against the teacher: soft targets, logits, tempered; none trains on labels alone.",
    ),
    option("--temperature", type=float, help="Temperature of --distillation kl."),
    option(
        "--joint",
        type=click.Choice(["none", "alpha", "ratio", "harmonic"]),
        help="How the loss on hard labels joins the distillation loss.",
    ),
    option(
        "--alpha",
        type=Pair(example="0:0.5", single=True),
        help="Weight of the HARD-LABEL loss in (1-alpha)*L_d + alpha*L_s, as in the paper; A:B from start to end.",
    ),
    option(
        "--harmonic-weights",
        type=Pair(example="13:1"),
        help="w_d:w_s, the weights of distillation and hard-label loss in their harmonic mean.",
    ),
    option("--teacher-online", metavar="TEACHER",
           help="Keep a teacher in memory, too, as dump's --teacher: learn from its attention and hidden states."),
    option("--teacher-checkpoint", help="Its weights.  [default: what finetune left, else timm's pretrained ones]"),
    option("--attention-weight", default=1.0, help="Weight of the loss on attention, with --teacher-online."),
    option("--hidden-weight", default=0.1, help="Weight of the loss on hidden states, likewise."),
    option("--match", metavar="S:T,...", callback=listed,
           help="Layers compared, student:teacher, from 0.  [default: MiniViT's, or every second of equally many]"),
    option("--init-from", help="Start from these weights of the same family: a file, or the folder of a run."),
    option("--cut", type=int, help="Leading blocks copied from --init-from.  [default: all at the same place in both]"),
    option("--freeze-copied", is_flag=True, help="Hold what was copied fixed."),
    option(
        "--seed", default=0, type=click.IntRange(min=0), help="Run seed: initial weights, drop path, shuffled shards."
    ),
    option("--accumulate", default=1, type=count, help="Cut each batch into so many pieces, to save memory."),
    option("--out", help="The run's folder.  [default: runs/train/STUDENT-DATA, with -labels for labels alone]"),
    option("--fresh", is_flag=True, help="Start anew where the folder holds a run, instead of resuming it."),
    option("--checkpoint-steps", default=500, type=count, help="Steps between two checkpoints."),
    option("--log-steps", default=10, type=count, help="Steps between two lines of metrics."),
    option("--tensorboard/--no-tensorboard", default=True, help="Write TensorBoard events."),
    option("--skip-bad", is_flag=True, help="Train on without the images that do not decode."),
    option("--exclude", help="File of samples to leave out of the loss: JSON of audit, or a number or name a line."),
)

_EVAL = (
    option("--checkpoint", required=True, help="File of weights, or the folder of a run."),
    option("--model", help="Which model the weights are of.  [default: what their card says]"),
    option("--data", default="digits", help="The data set to measure on, with labels."),
    option("--split", default="val", help="The split of it, where it has splits."),
    option("--subset", type=count, help="Use only this many samples, evenly spaced."),
    option(
        "--real", is_flag=True, help="Also use the ReaL labels of ImageNet's validation images, found by file name."
    ),
    option("--teacher", help="Model file with its card: agreement with it, top-1 and KL."),
    option("--baseline", help="Model file with its card: gains over it, class by class."),
    option("--size", type=count, help="Side of the checkpoint's views in pixels.  [default: what the card says]"),
)

_AUDIT = (
    option("--data", default="digits", help="The data set it was made of, with labels."),
    option("--out", help="Folder of the report and the contact sheet.  [default: runs/audit/TEACHER-DATA]"),
    option("--top", default=5, type=count,
           help="A label is outside a view where it is not among so many first classes."),
    option("--threshold", default=0.5, help="A sample is hard where its label is outside in more of its views."),
    option("--worst", default=30, type=count, help="Hard samples to look at more closely, and to draw."),
)

_VERIFY = (
    option("--data", help="Replay sampled views of this data set against the witnesses."),
    option("--checkpoint", help="Re-run the teacher with these weights on sampled views; needs --data."),
    option("--teacher", help="The teacher to re-run; needs --data.  [default: the store's, which must be timm's]"),
    option("--view", help="The store's own module:function, which is never imported on the store's word."),
    option("--sample", default=256, type=count, help="Views to replay, of those with a witness: one in 64."),
    option("--seed", default=0, type=click.IntRange(min=0), help="Which views are sampled."),
)


def of_train(*names: str) -> tuple[Callable[[Any], Any], ...]:
    """Those of train's options with these names, for a command that trains students."""

    def named(add: Callable[[Any], Any]) -> str:
        def probe() -> None:
            """A command of this option alone."""

        (parameter,) = add(probe).__click_params__
        return str(parameter.name)

    return tuple(add for add in _TRAIN if named(add) in names)


# All options of a command but those that others share.
pack_options = adding(_PACK)
finetune_options = adding(_FINETUNE)
plan_options = adding(_PLAN)
dump_options = adding(_DUMP)
convert_options = adding(_CONVERT)
train_options = adding(_TRAIN)
eval_options = adding(_EVAL)
audit_options = adding(_AUDIT)
verify_options = adding(_VERIFY)
