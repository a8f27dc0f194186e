"""Loss and gradient against sparse soft targets, beside hard-label cross-entropy on the same logits.

The rival is torch's ``cross_entropy``, forward and backward. The ceiling is a copy of the logits: whatever a loss does,
it reads them once and writes a gradient of their size once. Memory is what lies beside the logits at the highest point,
as torch counts it.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import Row, Timing, Work, interleaved, median_rate, median_ratio
from logitstore.device import resolve_device
from logitstore.losses import soft_target_cross_entropy

BATCH, CLASSES, TOPK = 1024, 21_841, 100
CALLS = 20
"""Calls timed together on a GPU."""


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most memory that torch holds during ``work`` beyond what it held before, in bytes."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*Profiler clears events")  # some versions of torch say so of their default
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            work()
    with tempfile.TemporaryDirectory(prefix="logitstore-trace-") as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = [event for event in json.loads(path.read_text())["traceEvents"] if event["name"] == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event["args"]["Ev Idx"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


def made_records(batch: int, topk: int, classes: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Classes as a store keeps them, their probabilities, and the tail: 22 of 100 kept on average, as of real views."""
    generator = torch.Generator().manual_seed(0)
    first_B1 = torch.randint(classes, (batch, 1), generator=generator)
    index_BK = (first_B1 + 7 * torch.arange(topk)) % classes
    kept_B1 = torch.randint(1, max(2, topk * 44 // 100), (batch, 1), generator=generator)
    padding_BK = torch.arange(topk) >= kept_B1
    prob_BK = torch.rand(batch, topk, generator=generator).masked_fill_(padding_BK, 0.0)
    prob_BK *= 0.9 / prob_BK.sum(1, keepdim=True)
    index_BK = index_BK.masked_fill_(padding_BK, 65_535).to(torch.uint16)
    return index_BK.to(device), prob_BK.to(device), torch.full((batch,), 0.1, device=device)


def measure(
    *, device: str, repeats: int, batch: int = BATCH, classes: int = CLASSES, topk: int = TOPK, dtype: str = "float32"
) -> tuple[Row, list[Row]]:
    """Time loss and gradient, and find the most memory that each takes beside the logits.

    Args:
        device: as ``logitstore train`` takes it.
        repeats: rounds that count.
        batch: rows.
        classes: C, at most 65,535.
        topk: K.
        dtype: of the logits; a GPU's autocast gives bfloat16.

    Returns:
        the summary fields and the rows of the table. ``loss_ratio`` is the time of ours over that of hard labels, and
        ``loss_extra_bytes`` what ours takes more, negative where it takes less.
    """
    where = resolve_device(device)
    logits_BC = torch.randn(batch, classes, generator=torch.Generator().manual_seed(1)).to(where, getattr(torch, dtype))
    logits_BC.requires_grad_()
    spent_BC = logits_BC.detach().clone().requires_grad_()
    label_B = torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(2)).to(where)
    records = made_records(batch, topk, classes, where)

    def gradient(loss: Tensor, by: Tensor) -> None:
        torch.autograd.grad(loss, by)

    candidates: dict[str, Callable[[], Any]] = {
        "hard labels": lambda: gradient(torch.nn.functional.cross_entropy(logits_BC, label_B), logits_BC),
        "store": lambda: gradient(soft_target_cross_entropy(logits_BC, *records), logits_BC),
        "store, overwriting the logits": lambda: gradient(
            soft_target_cross_entropy(spent_BC, *records, overwrite=True), spent_BC
        ),
        "a copy of the logits": lambda: logits_BC.detach().clone(),
    }
    print(
        f"\nLoss and gradient of {batch:,} rows of {classes:,} classes, K={topk}, {dtype}, {where}. The ceiling is a "
        "copy of the logits: one read, one write."
    )
    peaks = {name: peak_bytes(work, where) for name, work in candidates.items()}
    timings = interleaved({name: _timed(work, where) for name, work in candidates.items()}, repeats=repeats)
    hard = timings["hard labels"]
    ratios = {name: median_ratio(hard, timings[name]) for name in candidates}
    copied = {name: median_ratio(timings["a copy of the logits"], timings[name]) for name in candidates}
    rows = [
        {
            "what": name,
            "ms": 1e3 / median_rate(timings[name]),
            "of hard labels": ratios[name],
            "of a copy": copied[name],
            "MiB beside the logits": peaks[name] / 2**20,
        }
        for name in candidates
    ]
    summary = {
        "loss_ratio": ratios["store"],
        "loss_overwrite_ratio": ratios["store, overwriting the logits"],
        "loss_extra_bytes": peaks["store"] - peaks["hard labels"],
        "loss_copy_ratio": copied["store"],
    }
    return summary, rows


def _timed(work: Callable[[], object], where: torch.device) -> Work:
    """One call on a CPU; on a GPU its own time of many, queued behind a long product as a training step's are."""
    if where.type == "cpu":
        return lambda: (work(), 1)[1]

    def many() -> Timing:
        stream = torch.cuda.current_stream(where)
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        square = torch.ones(8192, 8192, device=where)
        torch.mm(square, square)  # some ten milliseconds, in which the calls are queued
        began.record(stream)
        for _ in range(CALLS):
            work()
        ended.record(stream)
        torch.cuda.synchronize(where)
        return Timing(count=CALLS, wall=began.elapsed_time(ended) / 1e3, cpu=0.0)

    return many
