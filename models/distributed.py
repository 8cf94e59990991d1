"""Several processes that train one network, started by ``torchrun``: each takes its share of every batch.

Gradients are summed over the processes in one piece after each backward pass, so freezing, accumulation and the names
of the weights are the same with one process and with many. The loss of a process is its samples' sum over the size of
the whole batch: the sum of the gradients is then that of one process which sees the whole batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from models.errors import ConfigError

Value = TypeVar("Value")
PATIENCE = timedelta(hours=6)  # of processes that wait while the first one validates; a dead one is noticed at once


@dataclass(frozen=True)
class World:
    """This process among those of a run. Alone, everything here is free of cost and changes nothing."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among the processes on this machine: which of its GPUs is ours

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> "World":
        """What ``torchrun`` says in RANK, WORLD_SIZE and LOCAL_RANK; alone without them."""
        return cls(*(int(variables.get(name, default)) for name, default in _TORCHRUN))

    @property
    def is_first(self) -> bool:
        """Whether this process validates, and writes."""
        return self.rank == 0

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Connect the processes (gloo on the CPU, NCCL between GPUs) until the block ends.

        After an error they are left as they are: to part in good order is to wait for one that may be gone.
        """
        if self.size == 1:
            yield
            return
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=PATIENCE)
        yield
        distributed.destroy_process_group()

    def prepare(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The network with batch normalisation over the whole batch, on GPUs; the names of its weights stay."""
        if self.size > 1 and device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return model

    def share(self, rows_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of a batch that fall to this process: each row falls to exactly one."""
        return np.array_split(rows_B, self.size)[self.rank]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in each of them; ``tensor`` is changed."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def sum_gradients(self, model: nn.Module) -> None:
        """Give every process the sum of all gradients, and the mean of the running statistics that this batch moved.

        Those of a frozen part stay as they are, to the bit: a mean over three processes or more would round them.
        """
        if self.size == 1:
            return
        gradients = [each.grad for each in model.parameters() if each.grad is not None]
        moving = [each for each in model.modules() if each.training and hasattr(each, "running_mean")]
        statistics = [each for of in moving for each in of.buffers(recurse=False) if each.is_floating_point()]
        for tensors, factor in ((gradients, 1.0), (statistics, 1 / self.size)):
            for same in _by_type(tensors):
                flat = self.sum(torch.cat([each.detach().reshape(-1) for each in same])).mul_(factor)
                parts = flat.split([each.numel() for each in same])
                for tensor, part in zip(same, parts, strict=True):
                    tensor.detach().copy_(part.view_as(tensor))

    def broadcast(self, value: Value) -> Value:
        """What the first process has, in each of them."""
        if self.size == 1:
            return value
        held = [value]
        distributed.broadcast_object_list(held, device=torch.device("cpu"))
        return held[0]

    def broadcast_flag(self, flag: bool) -> bool:
        """Whether any process says so: a stop that is asked of one stops all, at the same step."""
        return bool(self.sum(torch.tensor(int(flag)))) if self.size > 1 else flag

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            self.broadcast_flag(False)


_TORCHRUN = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def _by_type(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """The tensors in groups of one data type each, in their order."""
    types = dict.fromkeys(tensor.dtype for tensor in tensors)
    return [[tensor for tensor in tensors if tensor.dtype == dtype] for dtype in types]


def refuse_small_shares(batch_sizes: Sequence[int], accumulate: int, world: World) -> None:
    """Raise ``ConfigError`` if a process would ever see a single photo at a time: batch normalisation needs two."""
    least = min(batch_sizes)
    if world.size > 1 and least < 2 * accumulate * world.size:
        message = (
            f"a batch of {least} photos in {world.size} processes and {accumulate} parts leaves some with fewer than 2:"
            " start fewer processes, or take a larger batch_size"
        )
        raise ConfigError(message, batch_size=least, processes=world.size, accumulate=accumulate)
