"""Several processes that train one model: what they agree on, and how the failure of one ends all of them.

``Ranks`` is the same thing for one process and for many; for one it opens no connection and changes no number. Every
collective is reached by all processes or by none. What may fail in one process alone is therefore done within
``Ranks.agreed``, which holds no other collective; what ends a process anywhere else, the others learn from the broken
connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from inspect import signature
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from logitstore.errors import InputError, PeerError
from logitstore.launch import Launch

T = TypeVar("T")

_MEETING = timedelta(minutes=10)  # for all to come
_PATIENCE = timedelta(hours=2)  # for the others: one may be looking at every file of a large data set
_ENDED = (
    "Another process of this run ended; what is done is kept, and the same command goes on from the last checkpoint."
)


class Ranks:
    """The processes of a run, seen from one of them.

    Args:
        launch: which one this is, and of how many. More than one must be connected, see ``joined``.
    """

    def __init__(self, launch: Launch | None = None) -> None:
        self._launch = launch or Launch()

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return self._launch.rank

    @property
    def world(self) -> int:
        """How many there are."""
        return self._launch.world

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self._launch.is_main

    def gathered(self, values: Sequence[float]) -> NDArray[np.float64]:
        """The values that each process gives, as many from each, float64 [world, values]. Never waits for a GPU."""
        own = torch.tensor(values, dtype=torch.float64)
        rows = [own]
        if self.world > 1:
            rows = [torch.empty_like(own) for _ in range(self.world)]
            distributed.all_gather(rows, own)
        return torch.stack(rows).numpy()

    def gathered_names(self, names: Sequence[str]) -> list[str]:
        """The names that the processes give, one after the other."""
        parts: list[Sequence[str]] = [names]
        if self.world > 1:
            parts = [()] * self.world
            distributed.all_gather_object(parts, tuple(names))
        return [name for part in parts for name in part]

    def added(self, value: Tensor) -> Tensor:
        """The sum over all processes, on the tensor's device, without a gradient."""
        if self.world == 1:
            return value
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total

    def from_main(self, value: T) -> T:
        """What the main process gives; what the others give is ignored."""
        if self.world == 1:
            return value
        box = [value if self.is_main else None]
        distributed.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]  # it is the main process's

    def buffers_from_main(self, module: nn.Module) -> None:
        """Give each process the main one's buffers: statistics of BatchNorm may differ among them."""
        if self.world > 1:
            for buffer in module.buffers():
                distributed.broadcast(buffer, src=0)

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """What happens within succeeds in all processes, or ends all of them. No collective is allowed within.

        Raises:
            PeerError: another process failed. Of those that failed, the first raises what it failed with.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as exc:
            failure = exc
        self.settle(failure, self.gathered([failure is not None])[:, 0] > 0)

    def settle(self, failure: Exception | None, failed_W: NDArray[np.bool_]) -> None:
        """End all processes where one has failed.

        Args:
            failure: what this one failed with.
            failed_W: whether each process failed; the same in all of them.

        Raises:
            PeerError: see ``agreed``.
        """
        if not failed_W.any():
            return
        if failure is not None and self.rank == int(np.argmax(failed_W)):
            raise failure
        raise PeerError from failure

    def alike(self) -> AbstractContextManager[None]:
        """See ``Launch.alike``."""
        return self._launch.alike()

    def synchronised(self, model: nn.Module, device: torch.device) -> nn.Module:
        """A model whose BatchNorm sees the images of all processes, on GPUs; otherwise the model as it is."""
        if self.world == 1 or device.type != "cuda":
            return model
        from timm.layers import convert_sync_batchnorm

        synchronised: nn.Module = convert_sync_batchnorm(model)
        return synchronised

    def replicated(self, model: nn.Module, device: torch.device) -> nn.Module:
        """A model whose gradients become the mean over all processes as they are made; of one process, itself."""
        if self.world == 1:
            return model
        # Buffers need not travel at every step, see ``buffers_from_main``. The option's name changed in torch 2.15.
        names = ("forward_sync_buffers", "broadcast_buffers")
        buffers = next(name for name in names if name in signature(DistributedDataParallel).parameters)
        options: dict[str, Any] = {buffers: False}
        if device.type == "cuda":
            options["device_ids"] = [device]
        return DistributedDataParallel(model, gradient_as_bucket_view=True, **options)

    def gradients(self, model: nn.Module, *, last: bool) -> AbstractContextManager[object]:
        """For the forward and backward pass of a piece of a batch: gradients travel with the last one alone."""
        if last or not isinstance(model, DistributedDataParallel):
            return nullcontext()
        no_sync: Callable[[], AbstractContextManager[object]] = model.no_sync
        return no_sync()


@contextmanager
def joined(launch: Launch | None = None) -> Iterator[Ranks]:
    """Connect the processes that were started together, for as long as the context lasts.

    They use gloo, and NCCL for what lies on GPUs. A connection that the caller has made already is used and kept.

    Args:
        launch: who this is; None asks the environment.

    Raises:
        InputError: the processes cannot reach each other, or are more than the GPUs here.
        PeerError: another process ended.
    """
    launch = launch or Launch.from_environment()
    ranks = Ranks(launch)
    if launch.world == 1:
        yield ranks
        return
    ours, finished = not distributed.is_initialized(), False
    if ours:
        _connect(launch)
    try:
        yield ranks
        finished = True
    except RuntimeError as exc:
        if not _is_lost_connection(exc):
            raise
        raise PeerError(_ENDED if ranks.is_main else "") from exc
    finally:
        # Gloo's threads must end before the interpreter does. NCCL may wait for processes that are no more.
        if ours and (finished or not torch.cuda.is_available()):
            distributed.destroy_process_group()


def _connect(launch: Launch) -> None:
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InputError(
            f"There are {launch.world} processes, but {' and '.join(missing)} do not say where they meet: start them "
            "with torchrun, or set these."
        )
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        if launch.local_rank < torch.cuda.device_count():
            torch.cuda.set_device(launch.local_rank)  # where NCCL looks
    try:
        meeting = rendezvous("env://", rank=launch.rank, world_size=launch.world, timeout=_MEETING)
        store, rank, world = next(meeting)
        store.set_timeout(_PATIENCE)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as exc:
        reason = str(exc).strip().splitlines()[0][:200]
        raise InputError(
            f"The {launch.world} processes cannot reach each other at {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']} ({reason}): start all of them with torchrun."
        ) from exc


def _is_lost_connection(error: RuntimeError) -> bool:
    return isinstance(error, distributed.DistError) or "gloo/transport" in str(error)
