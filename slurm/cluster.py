"""What is asked of the cluster for a job."""

import shutil
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ClusterConfig:
    """A SLURM job's needs. What is left empty is the cluster's own default."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    minutes: int = 240
    """Time limit; a job that reaches it is put into the queue again, and goes on."""
    cpus: int = 4
    """Of each job."""
    memory_gb: float = 8.0
    """Of each job, in 2^30 bytes."""

    def parameters(self) -> dict[str, Any]:
        """As submitit wants them."""
        named = {"partition": self.partition, "account": self.account, "qos": self.qos, "constraint": self.constraint}
        slurm = {f"slurm_{name}": value for name, value in named.items() if value}
        return {**slurm, "timeout_min": self.minutes, "cpus_per_task": self.cpus, "slurm_mem": f"{round(self.memory_gb * 1024)}M"}


def has_slurm() -> bool:
    """Whether jobs can be submitted from here."""
    return shutil.which("sbatch") is not None
