"""Train a student from a store with the Trainer of Hugging Face's transformers.

    pip install "logitstore[examples]"
    python with_transformers.py --store runs/dump/swin_t-digits --student swin_n --epochs 6
    torchrun --nproc-per-node 2 with_transformers.py --store runs/dump/swin_t-digits --student swin_n --epochs 6
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import EvalPrediction, Trainer, TrainingArguments

from logitstore import TrainBatches, TrainConfig, TrainLoss, ValidationViews, initial_student
from logitstore.cards import Preprocessing
from logitstore.device import normalise, resolve_device
from logitstore.optim import parameter_groups


class StoreTrainer(Trainer):
    """A Trainer whose data set gives whole batches, and whose model takes views."""

    criterion: TrainLoss
    fed: Preprocessing

    def get_train_dataloader(self):
        return self.train_dataset  # accelerate must not share out what is this process's part already

    def compute_loss(self, model, inputs: dict[str, Tensor], return_outputs=False, num_items_in_batch=None):
        logits = model(normalise(inputs["views"], self.fed.mean, self.fed.std, self.args.device))
        loss = self.criterion(logits, inputs) if model.training else cross_entropy(logits, inputs["labels"])
        return (loss, {"logits": logits}) if return_outputs else loss


def top1(found: EvalPrediction) -> dict[str, float]:
    """The share of images whose largest logit is that of their class."""
    return {"top1": (found.predictions.argmax(1) == found.label_ids).mean().item()}


def train(config: TrainConfig, output_dir: str = "runs/transformers") -> tuple[nn.Module, float]:
    """The student that the configuration asks for, and its top-1 accuracy."""
    recipe = config.effective_recipe()
    arguments = TrainingArguments(
        output_dir, seed=config.seed, use_cpu=resolve_device(config.device).type == "cpu",
        num_train_epochs=recipe.epochs, max_grad_norm=recipe.clip_grad or 0.0, ddp_find_unused_parameters=False,
        label_names=["labels"], remove_unused_columns=False, save_strategy="no", report_to="none",
    )  # fmt: skip
    batches = TrainBatches(config)  # after the arguments, which let the processes know each other
    student, fed = initial_student(config, batches)
    rate, steps = recipe.learning_rates(recipe.batch_size).peak, batches.epochs * len(batches)
    optimizer = torch.optim.AdamW(parameter_groups(student, weight_decay=recipe.weight_decay), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, cycle_momentum=False)
    trainer = StoreTrainer(
        student, arguments, train_dataset=batches, compute_metrics=top1, optimizers=(optimizer, schedule),
        eval_dataset=ValidationViews(batches.validation, size=batches.size, crop_pct=fed.crop_pct),
    )  # fmt: skip
    trainer.criterion, trainer.fed = TrainLoss(config), fed
    trainer.train()
    return student, trainer.evaluate()["eval_top1"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    for name in ("--store", "--data", "--val-data", "--student", "--exclude"):
        parser.add_argument(name)
    for name in ("--epochs", "--batch-size"):
        parser.add_argument(name, type=int)
    print(f"{train(TrainConfig(**vars(parser.parse_args())))[1]:.1%} top-1")
