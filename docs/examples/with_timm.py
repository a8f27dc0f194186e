"""Train a student from a store with timm's training task, which timm has since 1.0.23.

    python with_timm.py --store runs/dump/swin_t-digits --student swin_n --epochs 6
    torchrun --nproc-per-node 2 with_timm.py --store runs/dump/swin_t-digits --student swin_n --epochs 6
"""

import argparse
import os

import torch
import torch.distributed as dist
from timm.optim import create_optimizer_v2
from timm.task import ClassificationTask
from timm.utils import AverageMeter, accuracy, dispatch_clip_grad
from torch import nn
from torch.utils.data import DataLoader

from logitstore import TrainBatches, TrainConfig, TrainLoss, ValidationViews, initial_student
from logitstore.device import normalise
from logitstore.optim import parameter_groups


def train(config: TrainConfig) -> tuple[nn.Module, float]:
    """The student that the configuration asks for, and its top-1 accuracy."""
    recipe, batches = config.effective_recipe(), TrainBatches(config)
    device, steps = batches.device, batches.epochs * len(batches)
    student, fed = initial_student(config, batches)
    student, rate = student.to(device), recipe.learning_rates(recipe.batch_size).peak
    views = ValidationViews(batches.validation, size=batches.size, crop_pct=fed.crop_pct)
    task = ClassificationTask(student, criterion=TrainLoss(config), device=device)  # its targets are whole batches
    if dist.is_initialized():
        task.prepare_distributed()
    optimizer = create_optimizer_v2(parameter_groups(student, weight_decay=recipe.weight_decay), "adamw", lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, cycle_momentum=False)

    torch.manual_seed(config.seed)
    for epoch in range(batches.epochs):
        batches.set_epoch(epoch)
        task.train()
        for batch in batches:
            result = task(normalise(batch["views"], fed.mean, fed.std, device), batch)
            result["loss"].backward()
            if recipe.clip_grad is not None:
                dispatch_clip_grad(student.parameters(), recipe.clip_grad)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()

    student.eval()
    top1 = AverageMeter()
    for batch in DataLoader(views, batch_size=64):  # all of them in every process
        with torch.no_grad():
            logits = student(normalise(batch["views"], fed.mean, fed.std, device))
        top1.update(accuracy(logits, batch["labels"].to(device))[0].item() / 100, len(logits))
    return student, top1.avg


if __name__ == "__main__":
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    for name in ("--store", "--data", "--val-data", "--student", "--exclude"):
        parser.add_argument(name)
    for name in ("--epochs", "--batch-size"):
        parser.add_argument(name, type=int)
    if "LOCAL_RANK" in os.environ:  # started by torchrun
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group()
    print(f"{train(TrainConfig(**vars(parser.parse_args())))[1]:.1%} top-1")
    if dist.is_initialized():
        dist.destroy_process_group()
