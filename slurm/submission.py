"""Submits jobs to SLURM through submitit, and reports SLURM's reason if it refuses them."""

import contextlib
import io
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from slurm.cluster import PROFILE_VARIABLE, ClusterConfig
from slurm.errors import ClusterError
from slurm.tasks import DistributedTask, requeue_lines, start_lines

MAX_REQUEUES = 1_000_000  # how often a job may reach its time limit and be requeued


def executor_of(
    logs: Path, name: str, config: ClusterConfig, processes: int = 1, **more: Any
) -> submitit.AutoExecutor:
    """An executor that submits jobs with these resources; `more` are submitit's own parameters."""
    executor = submitit.AutoExecutor(
        logs, cluster="slurm", slurm_max_num_timeout=MAX_REQUEUES, slurm_python=config.python()
    )
    executor.update_parameters(name=name, **{**config.parameters(processes), **more})
    return executor


def training_executor(
    logs: Path, name: str, config: ClusterConfig, nodes: int, processes: int, code: Path
) -> submitit.AutoExecutor:
    """An executor for one job of `nodes` times `processes` processes, which runs the code in the
    folder `code`, and is requeued until it is done."""
    # PYTHONSAFEPATH: otherwise Python would import from the folder of submission, not the snapshot
    own = [
        f"unset {PROFILE_VARIABLE}",
        "export PYTHONSAFEPATH=1",
        f'export PYTHONPATH="{code}${{PYTHONPATH:+:$PYTHONPATH}}"',
        f"export OMP_NUM_THREADS={config.cpus}",
    ]
    more = {
        "nodes": nodes,
        "slurm_stderr_to_stdout": True,
        "slurm_setup": [*config.setup_lines(), *own, *start_lines(logs)],
        "slurm_teardown": requeue_lines(logs),
    }
    return executor_of(logs, name, config, processes, **more)


def submit_distributed(executor: submitit.AutoExecutor, task: DistributedTask) -> str:
    """Submit a job of many processes; returns its id. ClusterError, with SLURM's own reason, if it
    is refused."""
    check_possible(executor)
    with refusals():
        return str(executor.submit(task).job_id)


def script_of(executor: submitit.AutoExecutor) -> str:
    """The sbatch script that would be submitted."""
    slurm: Any = executor._executor  # submitit has no public API for this
    return str(slurm._make_submission_file_text(slurm._submitit_command_str, "dry-run"))


def check_possible(executor: submitit.AutoExecutor) -> None:
    """ClusterError if SLURM says that such a job can never run. A real submission may be accepted
    all the same, and wait for ever."""
    done = subprocess.run(
        ["sbatch", "--test-only"],
        input=script_of(executor),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.replace("sbatch: error:", "").replace("allocation failure:", "")
        raise ClusterError(
            f"SLURM refused the job: {'; '.join(line.strip() for line in reason.splitlines())}"
        )


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turn a refusal by SLURM into a ClusterError."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises, too
            yield
    except (FailedJobError, FailedSubmissionError) as error:
        text = str(getattr(error, "stderr", None) or error)
        raise ClusterError(
            f"SLURM refused the job: {' '.join(text.replace('sbatch: error:', '').split())}"
        ) from None
