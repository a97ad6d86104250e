"""Columns: each process of a training holds some columns of every table, and partial sums meet here.

Propagation never mixes columns, so it needs no other process; a score, a penalty and a mapped vector are sums over
columns, so each process adds up its own and `total` adds those of all. Everything after a total is the same everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

_PATIENCE = timedelta(days=30)
"""The others wait while the first process prepares data; torchrun ends them if it dies."""
_BLOCK = 65_536
"""Rows that are gathered at once."""

T = TypeVar("T")


class Columns:
    """Which columns a process holds. Alone it holds all of them, and every sum and gathering is the identity.

    Attributes:
        rank: the process's number; the first leads, and writes what there is to write.
        ranks: number of processes.
        beside: how many of them are on this machine.
        steps, sent: by purpose, how often something was summed up and the bytes that this process gave to it.
    """

    def __init__(self, rank: int = 0, ranks: int = 1, beside: int = 1, control: Any = None) -> None:
        self.rank, self.ranks, self.beside = rank, ranks, beside
        self.steps: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self._control, self._purpose = control, ""

    def parts(self, width: int) -> list[slice]:
        """The columns of each process, in order; their numbers differ by one at most.

        Raises:
            ValueError: there are fewer columns than processes.
        """
        if width < self.ranks:
            raise ValueError(
                f"a table's width is {width}, must be ≥ {self.ranks}, the number of processes; start fewer of them"
            )
        return [slice(width * rank // self.ranks, width * (rank + 1) // self.ranks) for rank in range(self.ranks)]

    def own(self, width: int) -> slice:
        """The columns of this process."""
        return self.parts(width)[self.rank]

    def begin(self, purpose: str) -> None:
        """A step begins: what is summed up from now on is counted as its; alone there is nothing to count."""
        if self.ranks > 1:
            self._purpose = purpose
            self.steps[purpose] += 1

    def bytes_by_step(self) -> dict[str, dict[str, int]]:
        """By purpose, how many steps there were and the bytes that this process gave to their sums."""
        return {name: {"steps": steps, "bytes": self.sent[name]} for name, steps in self.steps.items()}

    def told(self) -> str:
        """The mean bytes of a step of each purpose in words."""
        return ", ".join(f"{name} {self.sent[name] / steps:,.0f}" for name, steps in self.steps.items())

    def total(self, partial: Tensor) -> Tensor:
        """The sum of all processes' partial sums, differentiable by this one's."""
        return self.totals(partial)[0]

    def totals(self, *partials: Tensor) -> tuple[Tensor, ...]:
        """As `total` of each, in one message; float32 on one device."""
        return partials if self.ranks == 1 else _Totals.apply(self, *partials)  # type: ignore[no-untyped-call]

    def add_up(self, flat: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        self.sent[self._purpose] += flat.numel() * flat.element_size()
        with self._others():
            dist.all_reduce(flat)

    def agreed(self, value: T) -> T:
        """The first process's value, a plain one, in every process."""
        if self.ranks == 1:
            return value
        values = [value]
        with self._others():
            dist.broadcast_object_list(values, 0, self._control)
        return values[0]

    def every(self, value: T) -> list[T]:
        """Every process's value, a small one, in order, in every process."""
        if self.ranks == 1:
            return [value]
        values: list[Any] = [None] * self.ranks
        with self._others():
            dist.all_gather_object(values, value, self._control)
        return values

    def wait(self) -> None:
        """Go on when every process is here."""
        self.every(None)

    def blocks(self, own: Tensor, width: int) -> Iterator[Tensor]:
        """Whole rows of a table on the CPU, block by block, in the first process; the others only give theirs."""
        for block in torch.split(own, _BLOCK):
            if self.rank:
                with self._others():
                    dist.send(block.contiguous(), 0, self._control)
            else:
                yield self._joined(block, width) if self.ranks > 1 else block

    def _joined(self, block: Tensor, width: int) -> Tensor:
        pieces = [block]
        for rank, part in enumerate(self.parts(width)[1:], start=1):
            pieces.append(block.new_empty(block.shape[0], part.stop - part.start))
            with self._others():
                dist.recv(pieces[-1], rank, self._control)
        return torch.cat(pieces, dim=1)

    @contextmanager
    def _others(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise ConnectionError(
                f"train: process {self.rank} of {self.ranks} lost another one: {str(error).partition('. ')[0]}; "
                "start the same command again, it goes on after the last finished epoch"
            ) from error


ALONE = Columns()


@contextmanager
def grouped(environment: Mapping[str, str]) -> Iterator[Columns]:
    """Be one of the processes that torchrun started, until the block ends; after an error the process has to end.

    Args:
        environment: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE and where they meet, as torchrun sets them.
    """
    rank, ranks, here, beside = (
        int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    )
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(here % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_PATIENCE)
    yield Columns(rank, ranks, beside, dist.new_group(backend="gloo", timeout=_PATIENCE))
    dist.destroy_process_group()


class _Totals(torch.autograd.Function):
    """What follows a total is the same in every process, so its gradient is the gradient of each partial sum."""

    @staticmethod
    def forward(_ctx: Any, columns: Columns, *partials: Tensor) -> tuple[Tensor, ...]:
        flat = torch.cat([partial.flatten() for partial in partials])
        columns.add_up(flat)
        pieces = torch.split(flat, [partial.numel() for partial in partials])
        return tuple(piece.view(partial.shape) for piece, partial in zip(pieces, partials, strict=True))

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *gradients
