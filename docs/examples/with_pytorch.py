"""Train a student from a store in a loop of plain PyTorch.

    python with_pytorch.py --store runs/dump/swin_t-digits --student swin_n --epochs 6
    torchrun --nproc-per-node 2 with_pytorch.py --store runs/dump/swin_t-digits --student swin_n --epochs 6
"""

import argparse
import math
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Subset

from logitstore import TrainBatches, TrainConfig, TrainLoss, ValidationViews, initial_student
from logitstore.device import normalise
from logitstore.optim import parameter_groups


def train(config: TrainConfig) -> tuple[nn.Module, float]:
    """The student that the configuration asks for, and its top-1 accuracy."""
    recipe, criterion, batches = config.effective_recipe(), TrainLoss(config), TrainBatches(config)
    device, steps = batches.device, batches.epochs * len(batches)
    student, fed = initial_student(config, batches)
    views = ValidationViews(batches.validation, size=batches.size, crop_pct=fed.crop_pct)
    student, rate = student.to(device), recipe.learning_rates(recipe.batch_size).peak
    model = DistributedDataParallel(student) if dist.is_initialized() else student
    optimizer = torch.optim.AdamW(parameter_groups(student, weight_decay=recipe.weight_decay), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, cycle_momentum=False)

    torch.manual_seed(config.seed)
    for epoch in range(batches.epochs):
        batches.set_epoch(epoch)
        model.train()
        for batch in batches:
            logits = model(normalise(batch["views"], fed.mean, fed.std, device))
            criterion(logits, batch).backward()
            nn.utils.clip_grad_norm_(student.parameters(), recipe.clip_grad or math.inf)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()

    student.eval()
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    right = torch.zeros((), device=device)
    for batch in DataLoader(Subset(views, range(rank, len(views), world)), batch_size=64):
        with torch.no_grad():
            logits = student(normalise(batch["views"], fed.mean, fed.std, device))
        right += (logits.argmax(1) == batch["labels"].to(device)).sum()
    if world > 1:
        dist.all_reduce(right)
    return student, right.item() / len(views)


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
