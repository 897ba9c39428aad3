"""The processes of a job: which one am I, on what device, and the few things they agree on."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from corrflow.device import choose_device, share_cores
from corrflow.errors import check_positive

SETTLE_SECONDS = 3.0  # from one process's failure until the others have reported theirs


@dataclass(frozen=True)
class TimeoutConfig:
    """How long processes wait for one another before they end with a message."""

    join_seconds: float = 300.0
    """How long all processes may take to join the job at its start."""
    stall_seconds: float = 600.0
    """How long a step waits for a process that is late; must be more than a validation on one
    process, or a slow read, may take."""

    def __post_init__(self) -> None:
        check_positive("timeouts", self, "join_seconds stall_seconds")


class LostRankError(RuntimeError):
    """Processes of the job can't be reached; the message names them."""


@dataclass(frozen=True)
class DistributedContext:
    """This process among those of the job."""

    rank: int
    world_size: int
    device: torch.device
    hosts: tuple[str, ...] = ()
    """The node of each process, by rank."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes."""
        return self.rank == 0

    def all_reduce_max(self, number: int) -> int:
        """The largest number of any rank. A collective: every rank must call it at the same
        place."""
        if self.world_size == 1:
            return number
        largest = torch.tensor([number])  # on the CPU, through gloo: no device is waited for
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest.item())

    def all_reduce_mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over ranks. A collective."""
        return self.all_reduce_sum(values) / self.world_size

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over ranks. A collective."""
        if self.world_size == 1:
            return values
        summed = values.detach().clone()
        dist.all_reduce(summed)
        return summed

    def broadcast(self, *tensors: torch.Tensor) -> None:
        """Overwrite tensors with those of rank 0. A collective."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def broadcast_number(self, number: int) -> int:
        """Rank 0's number, on every rank. A collective."""
        if self.world_size == 1:
            return number
        value = torch.tensor([number])
        dist.broadcast(value, src=0)
        return int(value.item())

    def barrier(self) -> None:
        """Until every rank is here. A collective."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def init_distributed(
    device: str, timeouts: TimeoutConfig | None = None
) -> Iterator[DistributedContext]:
    """Join the job that RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT
    tell of (torchrun sets them too); without them this process is alone.

    Raises:
        LostRankError: others didn't come, or can't be reached any more.
    """
    timeouts = timeouts or TimeoutConfig()
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    here = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    host = os.environ.get("NODE_NAME", socket.gethostname())
    if here.type == "cuda":
        torch.cuda.set_device(here)
    if world == 1:
        yield DistributedContext(rank, world, here, (host,))
        return
    if here.type == "cpu":
        share_cores(int(os.environ.get("LOCAL_WORLD_SIZE", str(world))))
    store = connect_store(rank, world, timeouts.join_seconds)
    hosts = gather_hosts(store, rank, world, host, timeouts.join_seconds)
    backend = "cpu:gloo,cuda:nccl" if here.type == "cuda" else "gloo"
    limit = timedelta(seconds=timeouts.stall_seconds)
    dist.init_process_group(
        backend, store=PrefixStore("group", store), rank=rank, world_size=world, timeout=limit
    )
    with ExitStack() as group:
        group.callback(dist.destroy_process_group)
        try:
            yield DistributedContext(rank, world, here, hosts)
        except RuntimeError as error:
            if not is_lost_connection(error):
                raise
            # the group is left as it is: to take it down would be to wait for those who are lost
            group.pop_all()
            raise LostRankError(
                describe_lost(store, rank, hosts, timeouts.stall_seconds)
            ) from error


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether an error is torch's of a collective. Those of gloo are of no class of their own; our
    own errors are, and may name a file or clip called so."""
    plain = type(error) is RuntimeError
    return isinstance(error, dist.DistError) or (plain and "gloo" in str(error))


def connect_store(rank: int, world: int, seconds: float) -> Store:
    """The store that rank 0 keeps for all."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun keeps it itself
        attempt = f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        return PrefixStore(
            attempt, TCPStore(address, port, world, False, timedelta(seconds=seconds))
        )
    try:
        return TCPStore(
            address, port, world, rank == 0, timedelta(seconds=seconds), wait_for_workers=False
        )
    except dist.DistError as error:
        if rank == 0:
            raise LostRankError(
                f"rank 0 can't listen on {address}:{port}: {first_line(error)}"
            ) from None
        raise LostRankError(
            f"rank {rank}: no answer from rank 0 at {address}:{port} within {seconds:g} s"
        ) from None


def gather_hosts(store: Store, rank: int, world: int, host: str, seconds: float) -> tuple[str, ...]:
    """The nodes of all processes, once each has said its own; LostRankError names those that
    don't."""
    keys = [f"host/{of}" for of in range(world)]
    try:
        store.set(keys[rank], host)
        store.wait(keys, timedelta(seconds=seconds))
        return tuple(store.get(key).decode() for key in keys)
    except RuntimeError:
        came = [of for of, key in enumerate(keys) if is_set(store, key)]
        missing = ", ".join(str(of) for of in range(world) if of not in came)
        nodes = sorted({store.get(keys[of]).decode() for of in came})
        raise LostRankError(
            f"rank {missing} of {world} didn't come within {seconds:g} s; the "
            f"others are on {', '.join(nodes)}"
        ) from None


def describe_lost(store: Store, rank: int, hosts: tuple[str, ...], seconds: float) -> str:
    """Who can't be reached: all who don't say within a moment that they, too, lost somebody."""
    try:
        store.set(f"lost/{rank}", "somebody")
        time.sleep(SETTLE_SECONDS)
        silent = [of for of in range(len(hosts)) if not is_set(store, f"lost/{of}")]
    except RuntimeError:  # the store is rank 0's
        silent = [0]
    if not silent:
        return "the connection between the processes broke"
    named = ", ".join(f"rank {of} on {hosts[of]}" for of in silent)
    return f"lost {named}: ended, or no answer for {seconds:g} s"


def is_set(store: Store, key: str) -> bool:
    """Whether a key is set."""
    return bool(store.check([key]))


def first_line(error: Exception) -> str:
    """Of its message."""
    return next(iter(str(error).splitlines()), type(error).__name__)
