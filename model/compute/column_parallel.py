"""Column parallelism: each process of a training holds some columns of every table; partial sums are all-reduced.

Propagation never mixes columns, so it needs no other process. A score, a penalty and a mapped vector are sums over
columns: each process adds up its own columns, and `all_reduce` adds the partial sums of all processes. Everything after
an all-reduce is the same in every process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from data_contracts.statistics import StepTraffic

_TIMEOUT = timedelta(days=30)
"""The other processes wait while the first one prepares data; torchrun ends them if it dies."""
_BLOCK = 65_536
"""Rows gathered at once."""

T = TypeVar("T")


class ColumnParallel:
    """The process group of a training and the columns that this process holds.

    A single process holds all columns, and every collective is the identity.

    Attributes:
        rank: number of this process; rank 0 leads and writes all files.
        world_size: number of processes.
        local_world_size: number of processes on this machine.
        steps, sent: by purpose, the number of steps, and the bytes that this process sent to all-reduces.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, local_world_size: int = 1, control: Any = None) -> None:
        self.rank, self.world_size, self.local_world_size = rank, world_size, local_world_size
        self.steps: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self._control, self._purpose = control, ""

    def require_enough_columns(self, width: int) -> None:
        """Check that every process gets a column of a table of this width.

        Raises:
            ValueError: there are fewer columns than processes.
        """
        if width < self.world_size:
            raise ValueError(
                f"a table's width is {width}, must be ≥ {self.world_size}, the number of processes; start fewer of them"
            )

    def column_ranges(self, width: int) -> list[slice]:
        """The columns of each process, in order of rank; their counts differ by one at most.

        Raises:
            ValueError: there are fewer columns than processes.
        """
        self.require_enough_columns(width)
        bounds = [width * rank // self.world_size for rank in range(self.world_size + 1)]
        return [slice(start, stop) for start, stop in pairwise(bounds)]

    def own_columns(self, width: int) -> slice:
        """The columns of this process."""
        return self.column_ranges(width)[self.rank]

    def start_step(self, purpose: str) -> None:
        """Count the all-reduces from here on as part of a new step; a single process counts nothing."""
        if self.world_size > 1:
            self._purpose = purpose
            self.steps[purpose] += 1

    def bytes_by_step(self) -> dict[str, StepTraffic]:
        """By purpose, the number of steps and the bytes that this process sent to their all-reduces."""
        return {name: {"steps": steps, "bytes": self.sent[name]} for name, steps in self.steps.items()}

    def traffic(self) -> str:
        """The mean bytes of a step of each purpose, as text."""
        return ", ".join(f"{name} {self.sent[name] / steps:,.0f}" for name, steps in self.steps.items())

    def all_reduce(self, partial: Tensor) -> Tensor:
        """The sum of all processes' partial sums, differentiable by this process's."""
        return self.all_reduce_coalesced(partial)[0]

    def all_reduce_coalesced(self, *partials: Tensor) -> tuple[Tensor, ...]:
        """`all_reduce` of each tensor, in one message; all float32 and on one device."""
        return partials if self.world_size == 1 else _AllReduce.apply(self, *partials)  # type: ignore[no-untyped-call]

    def all_reduce_(self, flat: Tensor) -> None:
        """Replace a tensor by its sum over all processes, in place."""
        self.sent[self._purpose] += flat.numel() * flat.element_size()
        with self._lost_process_as_error():
            dist.all_reduce(flat)

    def broadcast(self, value: T) -> T:
        """The value of rank 0, a plain Python value, in every process."""
        if self.world_size == 1:
            return value
        values = [value]
        with self._lost_process_as_error():
            dist.broadcast_object_list(values, 0, self._control)
        return values[0]

    def all_gather(self, value: T) -> list[T]:
        """The values of all processes, small ones, in order of rank, in every process."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        with self._lost_process_as_error():
            dist.all_gather_object(values, value, self._control)
        return values

    def barrier(self) -> None:
        """Wait until every process has come this far."""
        self.all_gather(None)

    def gather_rows(self, table: Tensor, width: int) -> Iterator[Tensor]:
        """Whole rows of a table on the CPU, block by block, in rank 0; the other ranks send theirs and yield nothing.

        Args:
            table: the columns of this process.
            width: columns of all processes.
        """
        for block in torch.split(table, _BLOCK):
            if self.rank:
                with self._lost_process_as_error():
                    dist.send(block.contiguous(), 0, self._control)
            else:
                yield self._receive_columns(block, width) if self.world_size > 1 else block

    def _receive_columns(self, block: Tensor, width: int) -> Tensor:
        blocks = [block]
        for rank, columns in enumerate(self.column_ranges(width)[1:], start=1):
            blocks.append(block.new_empty(block.shape[0], columns.stop - columns.start))
            with self._lost_process_as_error():
                dist.recv(blocks[-1], rank, self._control)
        return torch.cat(blocks, dim=1)

    @contextmanager
    def _lost_process_as_error(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise ConnectionError(
                f"train: process {self.rank} of {self.world_size} lost another one: "
                f"{str(error).partition('. ')[0]}; "
                "start the same command again, it goes on after the last finished epoch"
            ) from error


SINGLE_PROCESS = ColumnParallel()


@contextmanager
def process_group(environment: Mapping[str, str]) -> Iterator[ColumnParallel]:
    """Join the processes that torchrun started, until the block ends; after an error the process has to exit.

    Args:
        environment: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE and the address of the first process, as torchrun
            sets them.
    """
    rank, world_size, local_rank, local_world_size = (
        int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    )
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_TIMEOUT)
    yield ColumnParallel(rank, world_size, local_world_size, dist.new_group(backend="gloo", timeout=_TIMEOUT))
    dist.destroy_process_group()


class _AllReduce(torch.autograd.Function):
    """What follows a sum is the same in every process, so its gradient is the gradient of each partial sum."""

    @staticmethod
    def forward(_ctx: Any, processes: ColumnParallel, *partials: Tensor) -> tuple[Tensor, ...]:
        flat = torch.cat([partial.flatten() for partial in partials])
        processes.all_reduce_(flat)
        sums = torch.split(flat, [partial.numel() for partial in partials])
        return tuple(total.view(partial.shape) for total, partial in zip(sums, partials, strict=True))

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *gradients
