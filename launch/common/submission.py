"""Hands a training run to SLURM, and follows it there."""

import json
import shlex
import shutil
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import launch
from corrflow.files import atomic_file
from launch.common.run_config import check_run_config, read_json
from launch.configs.train import TrainJob
from shards.reading.corpus import Corpus
from slurm import ClusterError
from slurm.client import check_answer, has_slurm
from slurm.cluster import ClusterConfig
from slurm.snapshot import take_snapshot
from slurm.status import job_state
from slurm.submission import script_of, submit_distributed, training_executor
from slurm.tasks import DistributedTask, Task

RECORD = "job.json"
LOGS = "logs"
CODE = ("corrflow", "launch", "shards", "slurm")
LOOK_SECONDS = 5.0  # between two questions to the controller
LAG_SECONDS = 30.0  # that the accounts may be behind the queue, or the controller be silent


@dataclass(frozen=True)
class Record:
    """The job that a run was last handed to."""

    job: str
    command: str
    snapshot: str
    nodes: int
    processes: int
    """Of each node."""
    submitted: float
    """Seconds since the epoch."""

    @property
    def log(self) -> str:
        """Name of rank 0's log; the others' have their rank in place of the 0."""
        return f"{self.job}_0_log.out"


def read_record(run: Path) -> Record | None:
    """The job of a run; None if it never was in one. InputError if the file is damaged."""
    path = run / RECORD
    return Record(**read_json(path)) if path.exists() else None


def processes_of(job: TrainJob) -> int:
    """On each node: one for each GPU; on CPUs as many as asked for.

    Raises:
        ClusterError: neither GPUs nor CPUs are asked for; without SLURM.
    """
    if not has_slurm():
        raise ClusterError(
            f"nodes {job.nodes}: no sbatch on this machine: expected a SLURM cluster (here: "
            "without --nodes, with --procs N)"
        )
    if job.device == "cpu":
        return job.procs or 1
    gpus = cluster_of(job).gpus_per_node
    if not gpus:
        raise ClusterError(
            "gpus-per-node 0: expected at least 1, by --gpus-per-node or the cluster's profile (on "
            "CPUs: --device cpu)"
        )
    if job.procs not in (0, gpus):
        raise ClusterError(f"procs {job.procs}: expected {gpus}, one for each GPU of a node")
    return gpus


def cluster_of(job: TrainJob) -> ClusterConfig:
    """The profile, with the GPUs that are asked for."""
    return (
        job.cluster
        if job.gpus_per_node is None
        else replace(job.cluster, gpus_per_node=job.gpus_per_node)
    )


def submit(job: TrainJob, argv: list[str], corpus: Corpus) -> int:
    """Submit the run, say where it is to be found, follow it if asked to; returns the exit code.

    Raises:
        ClusterError: no cluster answers; the run is in a job already; SLURM refuses it.
    """
    if not job.dry_run:
        check_answer(f"nodes {job.nodes}", "to train here: without --nodes, with --procs N")
    record = read_record(job.run)
    if record and (state := job_state(record.job)).alive and not job.dry_run:
        raise ClusterError(
            f"run {job.run}: job {record.job} has it ({state.state}): expected it to end first "
            f"(scancel {record.job})"
        )
    processes, run = processes_of(job), job.run.absolute()
    code = run / "snapshots" / "000" / "code"
    if not job.dry_run:
        check_run_config(job, corpus.manifest)
        facts = {"command": sys.argv, "argv": argv, "config": asdict(job)}
        code = take_snapshot(run, Path(launch.__file__).parents[1], CODE, facts) / "code"
    executor = training_executor(
        run / LOGS, f"corrflow-{run.name}", cluster_of(job), job.nodes, processes, code
    )
    if job.dry_run:
        print(script_of(executor))
        return 0
    # a node whose GPUs fail must not train on its CPUs
    device = [] if job.device == "cpu" else ["--device", "cuda"]
    task = Task("launch.train:train_in_job", {"argv": [*argv, *device, *times_of(job.cluster)]})
    try:
        number = submit_distributed(executor, DistributedTask(task))
    except ClusterError:
        shutil.rmtree(code.parent)
        raise
    record = Record(
        number, shlex.join(sys.argv), str(code.parent), job.nodes, processes, time.time()
    )
    with atomic_file(run / RECORD) as file:
        file.write(json.dumps(asdict(record), indent=1).encode() + b"\n")
    announce(job, record)
    return follow(job.run, record) if job.follow else 0


def times_of(cluster: ClusterConfig) -> list[str]:
    """Flags of the two settings that must fit each other. A job reads the flags without the
    profile, and one of the two may be the profile's."""
    lead = ["--cluster.signal-lead", str(cluster.signal_lead)]
    return ["--cluster.minutes", str(cluster.minutes), *lead]


def announce(job: TrainJob, record: Record) -> None:
    """Where to look, and how to stop it."""
    print(
        f"submitted {record.job}: {record.nodes} nodes of {record.processes} processes\n"
        f"code      {record.snapshot}\n"
        f"log       {job.run / LOGS / record.log} (the other ranks' beside it)\n"
        f"state     python launch/status.py {job.run}\n"
        f"watch it  tensorboard --logdir {job.run}\n"
        f"cancel    scancel {record.job}; the same command goes on from the last checkpoint",
        flush=True,
    )


def follow(run: Path, record: Record) -> int:
    """Print what rank 0 prints until the job is over; 0 if it ended well. Ctrl-C leaves the job
    alone."""
    path, shown, position = run / LOGS / record.log, "", 0
    alive = time.monotonic()  # when it last was
    try:
        while True:
            state, now = job_state(record.job), time.monotonic()
            alive = now if state.alive else alive
            # a controller that is busy does not answer, as if it knew the job no more
            is_silent = state.state == "UNKNOWN" and now - alive < LAG_SECONDS
            if (
                line
                := f"job {record.job}: {state.state}{f' ({state.reason})' if state.reason else ''}"
            ) != shown:
                print(line, file=sys.stderr, flush=True)
                shown = line
            deadline = time.monotonic() + LOOK_SECONDS
            while time.monotonic() < deadline:
                position = print_from(path, position)
                if not state.alive and not is_silent:
                    return 0 if ended_well(record.job) else 1
                time.sleep(0.5)
    except KeyboardInterrupt:
        print(f"job {record.job} goes on without being watched", file=sys.stderr)
        return 0


def print_from(path: Path, position: int) -> int:
    """Print what a file has behind `position`; returns the new one."""
    if not path.exists():
        return position
    with path.open("rb") as file:
        file.seek(position)
        content = file.read()
    sys.stdout.write(content.decode(errors="replace"))
    sys.stdout.flush()
    return position + len(content)


def ended_well(job: str) -> bool:
    """Whether a job that has left the queue did what it was to do; the accounts are waited for."""
    deadline = time.monotonic() + LAG_SECONDS
    while (state := job_state(job)).alive and time.monotonic() < deadline:
        time.sleep(1.0)
    return state.state == "COMPLETED"
