"""Submits a training run to SLURM, and follows it there."""

import json
import shlex
import shutil
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import submitit

import launch
from corrflow.files import atomic_file
from launch.common.run_config import check_run_config, read_json, run_lock
from launch.configs.train import TrainJob
from shards.reading.corpus import Corpus
from slurm import ClusterError
from slurm.client import check_answer, has_slurm
from slurm.cluster import ClusterConfig
from slurm.snapshot import take_snapshot
from slurm.status import LOOK_SECONDS, wait_for_state
from slurm.submission import script_of, submit_distributed, training_executor
from slurm.tasks import DistributedTask, Task

RECORD = "job.json"
LOGS = "logs"
CODE = ("corrflow", "launch", "shards", "slurm")
LAG_SECONDS = 30.0  # how long the accounting database (sacct) may lag behind the queue


@dataclass(frozen=True)
class Record:
    """The job as which a run was last submitted."""

    job: str
    command: str
    snapshot: str
    nodes: int
    processes: int
    """On each node."""
    submitted: float
    """Seconds since the epoch."""

    @property
    def log(self) -> str:
        """Name of rank 0's log; other ranks have their number in place of the 0."""
        return f"{self.job}_0_log.out"


def read_record(run: Path) -> Record | None:
    """The job of a run; None if it was never submitted. InputError if the file is damaged."""
    path = run / RECORD
    return Record(**read_json(path)) if path.exists() else None


def processes_of(job: TrainJob) -> int:
    """Processes on each node: one for each GPU, or on CPUs the number that was asked for.

    Raises:
        ClusterError: this machine has no SLURM; no GPUs are asked for, nor CPUs; or the number of
            processes differs from that of the GPUs.
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
    """The cluster's profile, with the number of GPUs that was asked for."""
    return (
        job.cluster
        if job.gpus_per_node is None
        else replace(job.cluster, gpus_per_node=job.gpus_per_node)
    )


def submit(job: TrainJob, argv: list[str], corpus: Corpus) -> int:
    """Submit the run, print how to follow it, and follow it if asked to; returns the exit code.

    Raises:
        ClusterError: SLURM does not answer, a job already trains the run, or SLURM refuses the job.
        InputError: a process on this machine trains the run, or its folder belongs to another
            configuration.
    """
    if job.dry_run:
        print(script_of(executor_for(job, job.run.absolute() / "snapshots" / "000" / "code")))
        return 0
    check_answer(f"nodes {job.nodes}", "to train here: without --nodes, with --procs N")
    check_job_ended(job.run)
    with run_lock(job.run):
        check_job_ended(job.run)  # another command may have submitted it meanwhile
        check_run_config(job, corpus.manifest)
        record = submit_run(job, argv)
    announce(job, record)
    return follow(job.run, record) if job.follow else 0


def check_job_ended(run: Path) -> None:
    """ClusterError if the job as which a run was last submitted has not ended, or its state is not
    known."""
    record = read_record(run)
    if record is None or not has_slurm():  # without SLURM there is no one to ask
        return
    state = wait_for_state(
        record.job, f"expected an answer (if it has ended: remove {run / RECORD})"
    )
    if state.alive:
        raise ClusterError(
            f"run {run}: job {record.job} has it ({state.state}): expected it to end first "
            f"(scancel {record.job})"
        )


def submit_run(job: TrainJob, argv: list[str]) -> Record:
    """Submit the run with a snapshot of the code, and record the job in the run's folder."""
    facts = {"command": sys.argv, "argv": argv, "config": asdict(job)}
    snapshot = take_snapshot(job.run.absolute(), Path(launch.__file__).parents[1], CODE, facts)
    # a node whose GPUs fail must not train on its CPUs
    device = [] if job.device == "cpu" else ["--device", "cuda"]
    task = Task("launch.train:train_in_job", {"argv": [*argv, *device, *time_flags(job.cluster)]})
    try:
        number = submit_distributed(executor_for(job, snapshot / "code"), DistributedTask(task))
    except ClusterError:
        shutil.rmtree(snapshot)
        raise
    command, processes = shlex.join(sys.argv), processes_of(job)
    record = Record(number, command, str(snapshot), job.nodes, processes, time.time())
    with atomic_file(job.run / RECORD) as file:
        file.write(json.dumps(asdict(record), indent=1).encode() + b"\n")
    return record


def executor_for(job: TrainJob, code: Path) -> submitit.AutoExecutor:
    """The executor that submits the run, to train with the code in the folder `code`."""
    run = job.run.absolute()
    return training_executor(
        run / LOGS,
        f"corrflow-{run.name}",
        cluster_of(job),
        job.nodes,
        processes_of(job),
        code,
    )


def time_flags(cluster: ClusterConfig) -> list[str]:
    """The flags of the time limit and of the signal's lead, which must fit each other. They are
    passed to the job because it does not read the profile, where one of the two may be set."""
    lead = ["--cluster.signal-lead", str(cluster.signal_lead)]
    return ["--cluster.minutes", str(cluster.minutes), *lead]


def announce(job: TrainJob, record: Record) -> None:
    """Print where to follow the job, and how to stop it."""
    print(
        f"submitted {record.job}: {record.nodes} nodes of {record.processes} processes\n"
        f"code      {record.snapshot}\n"
        f"log       {job.run / LOGS / record.log} (the other ranks' beside it)\n"
        f"state     python launch/status.py {job.run}\n"
        f"watch it  tensorboard --logdir {job.run}\n"
        f"cancel    scancel {record.job}; the same command resumes from the last checkpoint",
        flush=True,
    )


def follow(run: Path, record: Record) -> int:
    """Print what rank 0 prints until the job ends; returns 0 if it succeeded. Ctrl-C stops only the
    printing."""
    path, shown, position = run / LOGS / record.log, "", 0
    try:
        while True:
            state = wait_for_state(record.job, "it is no longer watched")
            if (
                line
                := f"job {record.job}: {state.state}{f' ({state.reason})' if state.reason else ''}"
            ) != shown:
                print(line, file=sys.stderr, flush=True)
                shown = line
            deadline = time.monotonic() + LOOK_SECONDS
            while time.monotonic() < deadline:
                position = print_from(path, position)
                if not state.alive:
                    return 0 if ended_well(record.job) else 1
                time.sleep(0.5)
    except KeyboardInterrupt:
        print(f"job {record.job} goes on without being watched", file=sys.stderr)
        return 0


def print_from(path: Path, position: int) -> int:
    """Print a file from the byte `position` on; returns the new position."""
    if not path.exists():
        return position
    with path.open("rb") as file:
        file.seek(position)
        content = file.read()
    sys.stdout.write(content.decode(errors="replace"))
    sys.stdout.flush()
    return position + len(content)


def ended_well(job: str) -> bool:
    """Whether a job that has left the queue succeeded; waits until the accounting database knows
    it."""
    deadline = time.monotonic() + LAG_SECONDS
    while (
        state := wait_for_state(job, "it has left the queue")
    ).alive and time.monotonic() < deadline:
        time.sleep(1.0)
    return state.state == "COMPLETED"
