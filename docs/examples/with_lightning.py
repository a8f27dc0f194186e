"""Train a student from a store with Lightning.

    pip install "logitstore[examples]"
    python with_lightning.py --store runs/dump/swin_t-digits --student swin_n --epochs 6
    torchrun --nproc-per-node 2 with_lightning.py --store runs/dump/swin_t-digits --student swin_n --epochs 6
"""

import argparse
import os

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchmetrics import MeanMetric

from logitstore import TrainBatches, TrainConfig, TrainLoss, ValidationViews, initial_student
from logitstore.device import normalise
from logitstore.optim import parameter_groups


class Distillation(lightning.LightningModule):
    """A student that learns from a store."""

    def __init__(self, config: TrainConfig):
        super().__init__()
        self.config, self.recipe, self.criterion = config, config.effective_recipe(), TrainLoss(config)
        self.student, self.top1 = None, MeanMetric()

    def configure_model(self):  # by now the processes know each other, so each gets its part of the batches
        if self.student is None:
            self.batches = TrainBatches(self.config)
            self.student, self.fed = initial_student(self.config, self.batches)

    def forward(self, views: Tensor) -> Tensor:
        return self.student(normalise(views, self.fed.mean, self.fed.std, self.device))

    def train_dataloader(self):
        return self.batches

    def on_train_epoch_start(self):
        self.batches.set_epoch(self.current_epoch)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        return self.criterion(self(batch["views"]), batch)

    def configure_optimizers(self):
        rate, steps = self.recipe.learning_rates(self.recipe.batch_size).peak, self.trainer.estimated_stepping_batches
        optimizer = torch.optim.AdamW(parameter_groups(self.student, weight_decay=self.recipe.weight_decay), lr=rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, cycle_momentum=False)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def val_dataloader(self):
        views = ValidationViews(self.batches.validation, size=self.batches.size, crop_pct=self.fed.crop_pct)
        return DataLoader(Subset(views, range(self.global_rank, len(views), self.trainer.world_size)), batch_size=64)

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        self.top1.update((self(batch["views"]).argmax(1) == batch["labels"]).float())
        self.log("top1", self.top1, on_epoch=True)


def train(config: TrainConfig) -> tuple[nn.Module, float]:
    """The student that the configuration asks for, and its top-1 accuracy."""
    module, recipe = Distillation(config), config.effective_recipe()
    trainer = lightning.Trainer(
        max_epochs=recipe.epochs, gradient_clip_val=recipe.clip_grad, use_distributed_sampler=False, logger=False,
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", 1)), num_sanity_val_steps=0, enable_checkpointing=False,
    )  # fmt: skip
    lightning.seed_everything(config.seed, verbose=False)
    trainer.fit(module)
    return module.student, trainer.callback_metrics["top1"].item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    for name in ("--store", "--data", "--val-data", "--student", "--exclude"):
        parser.add_argument(name)
    for name in ("--epochs", "--batch-size"):
        parser.add_argument(name, type=int)
    print(f"{train(TrainConfig(**vars(parser.parse_args())))[1]:.1%} top-1")
