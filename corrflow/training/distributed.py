"""The processes of a job: which one am I, on what device, and the few things they agree on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from corrflow.errors import InputError


@dataclass(frozen=True)
class Processes:
    """This process among those of the job."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds on any rank. A collective."""
        return bool(self.most(int(flag)))

    def most(self, number: int) -> int:
        """The largest number of any rank. A collective: every rank must call it at the same place."""
        if self.world == 1:
            return number
        largest = torch.tensor([number])  # on the CPU, through gloo: no device is waited for
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest.item())

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over ranks. A collective."""
        return self.sum(values) / self.world

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over ranks. A collective."""
        if self.world == 1:
            return values
        summed = values.detach().clone()
        dist.all_reduce(summed)
        return summed

    def spread(self, *tensors: torch.Tensor) -> None:
        """Overwrite tensors with those of rank 0. A collective."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def agree(self, number: int) -> int:
        """Rank 0's number, on every rank. A collective."""
        if self.world == 1:
            return number
        told = torch.tensor([number])
        dist.broadcast(told, src=0)
        return int(told.item())

    def wait(self) -> None:
        """Until every rank is here. A collective."""
        if self.world > 1:
            dist.barrier()


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """`cpu`, `cuda`, or `auto`: CUDA where there is one.

    Raises:
        InputError: CUDA asked for without one, or fewer devices than processes on this machine.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {name!r}: expected auto, cpu or cuda")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if local_rank >= found:
        raise InputError(f"device cuda: {found} here, {local_rank + 1} or more processes: expected a device for each")
    return torch.device("cuda", local_rank)


@contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """Join the job that RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT tell of (torchrun sets them too);
    without them this process is alone."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    here = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if here.type == "cuda":
        torch.cuda.set_device(here)
    if world == 1:
        yield Processes(rank, world, here)
        return
    if here.type == "cpu":  # processes of one machine share its cores
        local_world = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_world))
    dist.init_process_group("cpu:gloo,cuda:nccl" if here.type == "cuda" else "gloo")
    try:
        yield Processes(rank, world, here)
    finally:
        dist.destroy_process_group()
