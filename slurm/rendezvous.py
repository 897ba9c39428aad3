"""The rendezvous of a job's processes: sets torchrun's environment variables from SLURM's."""

import os

import submitit

PORTS = range(20_000, 32_000)  # below those that Linux gives to outgoing connections


def distributed_variables() -> dict[str, str]:
    """RANK, WORLD_SIZE and the other variables of this process, within a job."""
    job = submitit.JobEnvironment()
    variables = {
        "RANK": job.global_rank,
        "WORLD_SIZE": job.num_tasks,
        "LOCAL_RANK": job.local_rank,
        "LOCAL_WORLD_SIZE": job.num_tasks // job.num_nodes,
        "MASTER_ADDR": job.hostnames[0],
        "MASTER_PORT": rendezvous_port(job.raw_job_id, os.environ.get("SLURM_RESTART_COUNT", "0")),
        "NODE_NAME": os.environ.get("SLURMD_NODENAME", job.hostname),
    }
    return {name: str(value) for name, value in variables.items()}


def rendezvous_port(job: str, restarts: str) -> int:
    """A port that all processes of a job compute alike; it changes with each restart, in case it
    was taken."""
    return PORTS[(int(job) * 7 + int(restarts)) % len(PORTS)]
