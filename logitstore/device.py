"""Where and in which precision a model runs: device, dtype, autocast, normalisation, copies back from the device, and a
private random state.

Nothing here changes a global setting of torch: neither its thread count nor its generators.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache

import torch

from logitstore.errors import InputError, ModelError
from logitstore.launch import Launch, usable_cores
from logitstore.pcg import pcg32_hash

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}
_DEFAULT_BATCH = {"cpu": 64, "cuda": 256}
_LAUNCHED_ALIKE = "TORCHELASTIC_RUN_ID"  # set by torchrun, which shows the same GPUs to all
TORCH_DOMAIN = 0x746F7263  # "torc": first word of the hashes that seed torch's generator


def resolve_device(name: str | torch.device | None) -> torch.device:
    """The device of that name; ``None`` or "auto" takes a GPU where there is one.

    Of several processes on a machine, each takes the GPU of its own number.

    Raises:
        InputError: no such device on this machine, or one GPU for several processes.
    """
    launch = Launch.from_environment()
    if name is None or name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and launch.local_world > 1:
            device = _own_gpu(device, launch)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as exc:
        raise InputError(f"Device {name!s} cannot be used on this machine; try --device cpu.") from exc
    return device


def _own_gpu(device: torch.device, launch: Launch) -> torch.device:
    """The GPU of this process, one of several on a machine."""
    if device.index is not None:
        raise InputError(
            f"--device {device} is one GPU for {launch.local_world} processes: give --device cuda, and each takes its "
            "own."
        )
    found = torch.cuda.device_count()
    if found == 1 and _LAUNCHED_ALIKE not in os.environ:
        return torch.device("cuda", 0)  # whoever started the processes gave each a GPU, and shows it no other
    if 0 < found < launch.local_world:
        raise InputError(
            f"There are {launch.local_world} processes on this machine, but {found} GPUs: start as many processes as "
            "GPUs, or give --device cpu."
        )
    return torch.device("cuda", launch.local_rank)


def resolve_dtype(name: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype of that name; ``None`` or "auto" is bfloat16 on a GPU that has it, else float32.

    Raises:
        InputError: a name other than float32, bfloat16, float16 (or fp32, bf16, fp16).
    """
    if isinstance(name, torch.dtype):
        name = dtype_name(name)
    if name is None or name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    if name not in DTYPES:
        raise InputError(f"Unknown dtype {name!r}; choose float32, bfloat16 or float16.")
    return DTYPES[name]


def default_workers(device: torch.device) -> int:
    """Threads that decode and render beside a model: one per core, half as many where the model itself needs the cores.

    Processes that were started together share the cores of their machine.

    Args:
        device: where the model runs.
    """
    cores = usable_cores() // Launch.from_environment().local_world
    return max(1, cores // 2 if device.type == "cpu" else cores)


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where and how models look at images."""

    device: torch.device
    """Where they run."""
    dtype: torch.dtype = torch.float32
    """float32, or the type of autocast."""
    batch_size: int = 64
    """Images at a time."""
    workers: int = 1
    """Threads that decode and resize."""

    @classmethod
    def of(cls, *, device: str, dtype: str, batch_size: int | None, workers: int | None) -> Compute:
        """What the options of a command ask for.

        Raises:
            InputError: no such device or dtype.
        """
        where = resolve_device(device)
        return cls(
            device=where,
            dtype=resolve_dtype(dtype, where),
            batch_size=batch_size or _DEFAULT_BATCH.get(where.type, 64),
            workers=workers or default_workers(where),
        )


class Arriving:
    """Tensors on their way to the machine's memory: they set out at once, and any thread may wait for them.

    Args:
        tensors: by name, at least one, all on one device; computed or under way on the stream that is current in the
            calling thread.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        # Copies that need not wait land in page-locked memory, which torch takes by itself.
        self._tensors = {name: tensor.to("cpu", non_blocking=True) for name, tensor in tensors.items()}
        self._device = next(iter(tensors.values())).device
        self._event: torch.cuda.Event | None = None
        if self._device.type == "cuda":
            # Who waits for it sleeps, instead of asking again and again: other threads render views meanwhile.
            event: torch.cuda.Event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            self._event = event

    def wait(self) -> dict[str, torch.Tensor]:
        """The tensors; waits for what the device was asked before them, not for what came after."""
        if self._event is not None:
            # The first GPU is a new thread's present one: waiting would take memory there, whatever is waited for.
            with torch.cuda.device(self._device):
                self._event.synchronize()
        return self._tensors


def dtype_name(dtype: torch.dtype) -> str:
    """``"float32"`` for ``torch.float32``: the name as manifests and cards hold it."""
    return str(dtype).removeprefix("torch.")


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Mixed precision in ``dtype``; nothing at all for float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def normalise(
    views_BCHW: torch.Tensor, mean: Sequence[float], std: Sequence[float], device: torch.device
) -> torch.Tensor:
    """Views as a model takes them, made on the device: ``(view / 255 - mean) / std``.

    Args:
        views_BCHW: uint8, on any device.
        mean: per channel, for values in [0, 1].
        std: per channel, for values in [0, 1].
        device: where the result lives.

    Returns:
        float32 [B, C, H, W], channels last on a GPU.
    """
    memory_format = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    moved = views_BCHW.to(device, non_blocking=True).to(torch.float32, memory_format=memory_format)
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), device)
    return moved.mul_(scale).add_(shift) if moved.data_ptr() != views_BCHW.data_ptr() else moved * scale + shift


@lru_cache(maxsize=64)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """What views are multiplied by, and what is added then; on the device for good, for each copy would wait for it."""
    with torch.inference_mode(False):  # in which the first call may happen, and training's cannot
        scale = torch.tensor([1.0 / (255.0 * s) for s in std], device=device).view(1, -1, 1, 1)
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, -1, 1, 1)
    return scale, shift


def require_runs(model: torch.nn.Module, size: int, *, name: str) -> None:
    """Show a model one black image, so that a size it cannot take is known before anything is written.

    Args:
        model: in any mode, on any device; left as it was.
        size: height and width of its images, in pixels.
        name: what to call it.

    Raises:
        ModelError: it does not run on images of this size.
    """
    parameter = next(model.parameters())
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, size, size, dtype=parameter.dtype, device=parameter.device))
    except Exception as exc:  # a model may fail in any way on images it was not made for
        reason = f"{type(exc).__name__}: {exc}".splitlines()[0][:200]
        raise ModelError(f"{name} does not run on images of {size} px ({reason}): give another --size.") from exc
    finally:
        model.train(was_training)


@contextmanager
def seeded(device: torch.device, *words: int) -> Iterator[None]:
    """A private state of torch's generators, seeded by a hash of ``words``; the global one is as it was afterwards.

    Used for initial weights and for what layers draw in a training step (drop path, dropout): ``words`` are the run
    seed and the step, so that a resumed run draws what the uninterrupted one drew.
    """
    low, high = (int(pcg32_hash(TORCH_DOMAIN, half, *_halves(words))) for half in (0, 1))
    seed = low | (high << 32)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed: it also seeds the other GPUs, whose states nobody would restore.
        torch.default_generator.manual_seed(seed)
        for gpu in devices:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


def _halves(words: tuple[int, ...]) -> list[int]:
    return [half for word in words for half in (word & 0xFFFFFFFF, word >> 32)]
