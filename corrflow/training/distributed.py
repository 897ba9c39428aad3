"""The processes of a job: this one's rank and device, and the collectives that the trainer uses."""

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

SETTLE_SECONDS = 3.0  # time for the other processes to report that they lost the connection, too


@dataclass(frozen=True)
class TimeoutConfig:
    """How long processes wait for one another before they end with an error."""

    join_seconds: float = 300.0
    """Time for all processes to join the job at its start."""
    stall_seconds: float = 600.0
    """How long a step waits for a late process. This must be longer than a validation on one
    process, or a slow read, may take."""

    def __post_init__(self) -> None:
        check_positive("timeouts", self, "join_seconds stall_seconds")


class LostRankError(RuntimeError):
    """Other processes of the job can't be reached; the message names them."""


@dataclass(frozen=True)
class DistributedContext:
    """This process's place in the job."""

    rank: int
    world_size: int
    device: torch.device
    hosts: tuple[str, ...] = ()
    """The node of each process, by rank."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the one that writes files."""
        return self.rank == 0

    def all_reduce_max(self, number: int) -> int:
        """The maximum over ranks. A collective: every rank must call it at the same point."""
        if self.world_size == 1:
            return number
        largest = torch.tensor([number])  # on the CPU, through gloo: does not wait for the device
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
        """Return rank 0's number on every rank. A collective."""
        if self.world_size == 1:
            return number
        value = torch.tensor([number])
        dist.broadcast(value, src=0)
        return int(value.item())

    def barrier(self) -> None:
        """Wait until every rank is here. A collective."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def init_distributed(
    device: str, timeouts: TimeoutConfig | None = None
) -> Iterator[DistributedContext]:
    """Join the job that the environment describes: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE,
    MASTER_ADDR and MASTER_PORT, which torchrun sets, too. Without them this is a single process.

    Raises:
        LostRankError: other processes did not join, or can no longer be reached.
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
            # do not destroy the group: that would wait for the lost processes
            group.pop_all()
            raise LostRankError(
                describe_lost(store, rank, hosts, timeouts.stall_seconds)
            ) from error


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether torch raised this error in a collective. Errors of gloo are plain RuntimeErrors whose
    text names gloo. Our own errors are subclasses and must not match, even if they name a file that
    is called gloo."""
    plain = type(error) is RuntimeError
    return isinstance(error, dist.DistError) or (plain and "gloo" in str(error))


def connect_store(rank: int, world: int, seconds: float) -> Store:
    """Connect to the store that rank 0 hosts for all processes."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun hosts it
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
    """Exchange the node names of all processes; LostRankError names the ranks that do not answer in
    time."""
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
            f"rank {missing} of {world} did not join within {seconds:g} s; the "
            f"others are on {', '.join(nodes)}"
        ) from None


def describe_lost(store: Store, rank: int, hosts: tuple[str, ...], seconds: float) -> str:
    """Name the processes that can't be reached: those that do not report within a moment that they,
    too, lost a connection."""
    try:
        store.set(f"lost/{rank}", "somebody")
        time.sleep(SETTLE_SECONDS)
        silent = [of for of in range(len(hosts)) if not is_set(store, f"lost/{of}")]
    except RuntimeError:  # rank 0 hosts the store
        silent = [0]
    if not silent:
        return "the connection between the processes broke"
    named = ", ".join(f"rank {of} on {hosts[of]}" for of in silent)
    return f"lost {named}: ended, or no answer for {seconds:g} s"


def is_set(store: Store, key: str) -> bool:
    """Whether a key is set in the store."""
    return bool(store.check([key]))


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).splitlines()), type(error).__name__)
