"""The resources and settings of a cluster's jobs: a profile in TOML, changed by flags."""

import os
import shlex
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from slurm.errors import ClusterError

PROFILE_VARIABLE = "CORRFLOW_CLUSTER"
PROFILES = Path(__file__).with_name("clusters")
OWN_PROFILES = Path("~/.config/corrflow/clusters")


@dataclass(frozen=True)
class ClusterConfig:
    """Resources and settings of SLURM jobs; `--cluster NAME|PATH` reads them from a TOML file. For
    empty settings the cluster's own defaults apply."""

    partition: str = ""
    """Partition (queue) of the jobs."""
    account: str = ""
    """Account to which the jobs are charged."""
    qos: str = ""
    """Quality of service of the jobs."""
    constraint: str = ""
    """Features that the nodes must have, as sbatch --constraint takes them."""
    nodelist: str = ""
    """Nodes that the job must include, as sbatch --nodelist takes them."""
    exclude: str = ""
    """Nodes that the job must not use."""
    gpus_per_node: int = 0
    """Number of GPUs on each node of a training job, with one process for each. Unless it is 0,
    each job of an array that evaluates or tracks gets one GPU; packing needs none."""
    gpu_type: str = ""
    """Type of GPU as the cluster names it, for example a100, if it has several."""
    gpu_form: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    """How GPUs are requested: with --gpus-per-node=8, or with --gres=gpu:8 as older clusters
    require."""
    minutes: int = 240
    """Time limit in minutes; a job that reaches it saves, is queued again, and resumes."""
    signal_lead: int = 120
    """Seconds before the time limit at which a job is signalled to save and stop."""
    cpus: int = 4
    """Number of processor cores for each process."""
    memory_gb: float = 8.0
    """Memory for each process in 2^30 bytes; 0 requests all memory of the node."""
    interface: str = ""
    """Network interface for NCCL and gloo, for example ib0."""
    scratch: str = ""
    """Folder on the node's own disk for temporary files and compiled kernels; $VARIABLES are
    expanded on the node."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables to set, such as those of NCCL or a proxy."""
    setup: tuple[str, ...] = ()
    """Shell lines to run before the job, such as module load or conda activate."""
    container: str = ""
    """Container image in which the jobs' processes run, with Python and all packages
    (slurm/containers): for apptainer a .sif file, for pyxis a value of its --container-image."""
    container_runtime: Literal["apptainer", "pyxis"] = "apptainer"
    """What runs the image: apptainer on the nodes, or SLURM's plugin pyxis."""
    container_mounts: tuple[str, ...] = ()
    """Folders to mount in the container, as FOLDER or FROM:TO: those of runs, shards and data.
    Apptainer mounts the home folder and the working directory by default."""

    def __post_init__(self) -> None:
        least = {"minutes": 1, "signal_lead": 1, "cpus": 1, "gpus_per_node": 0, "memory_gb": 0}
        for name, low in least.items():
            if (value := getattr(self, name)) < low:
                raise ClusterError(f"cluster: {name} {value}: expected {low} or more")
        if self.signal_lead >= 60 * self.minutes:
            raise ClusterError(
                f"cluster: signal_lead {self.signal_lead} s: expected less than the time limit of "
                f"{self.minutes} minutes"
            )

    def parameters(self, processes: int = 1) -> dict[str, Any]:
        """Parameters for submitit, for nodes with `processes` processes each."""
        names = ("partition", "account", "qos", "constraint", "nodelist", "exclude")
        slurm = {f"slurm_{name}": value for name in names if (value := getattr(self, name))}
        return {
            **slurm,
            "timeout_min": self.minutes,
            "tasks_per_node": processes,
            "cpus_per_task": self.cpus,
            "slurm_mem": f"{round(self.memory_gb * 1024) * processes}M" if self.memory_gb else "0",
            "slurm_signal_delay_s": self.signal_lead,
            "slurm_setup": self.setup_lines(),
            # since SLURM 22.05, srun does not inherit sbatch's --cpus-per-task, and its processes
            # would share one core
            "slurm_srun_args": [
                f"--cpus-per-task={self.cpus}",
                "--kill-on-bad-exit=1",
                *self.pyxis_arguments(),
            ],
            "slurm_additional_parameters": {"requeue": True, **self.gpus()},
        }

    def pyxis_arguments(self) -> list[str]:
        """Arguments of srun for an image that the plugin pyxis runs."""
        if not self.container or self.container_runtime != "pyxis":
            return []
        mounts = ",".join(self.mounts())
        return [
            f"--container-image={self.container}",
            *([f"--container-mounts={mounts}"] if mounts else []),
            "--no-container-mount-home",
        ]

    def python(self) -> str | None:
        """The command with which jobs run Python; None for this process's interpreter."""
        if not self.container:
            return None
        if self.container_runtime == "pyxis":
            return "python"
        binds = "".join(f" --bind {shlex.quote(mount)}" for mount in self.mounts())
        return f"apptainer exec --nv{binds} {shlex.quote(self.container)} python"

    def mounts(self) -> list[str]:
        """The folders to mount, as FROM:TO."""
        return [m if ":" in m else f"{m}:{m}" for m in self.container_mounts]

    def gpus(self) -> dict[str, str]:
        """The flag of sbatch that requests GPUs, with its value; empty for none."""
        if not self.gpus_per_node:
            return {}
        typed = (
            f"{self.gpu_type}:{self.gpus_per_node}" if self.gpu_type else str(self.gpus_per_node)
        )
        return (
            {"gpus-per-node": typed}
            if self.gpu_form == "gpus-per-node"
            else {"gres": f"gpu:{typed}"}
        )

    def setup_lines(self) -> list[str]:
        """Shell lines to run before the job's command."""
        variables = dict(self.environment)
        if self.interface:
            variables |= {
                "NCCL_SOCKET_IFNAME": self.interface,
                "GLOO_SOCKET_IFNAME": self.interface,
            }
        lines = [f"export {name}={quoted(value)}" for name, value in variables.items()]
        if self.scratch:  # homes on the network are slow for thousands of small files
            lines.append(f'export TMPDIR={quoted(self.scratch)}; mkdir -p "$TMPDIR"')
            lines.append(
                'export TRITON_CACHE_DIR="$TMPDIR/triton" '
                'TORCHINDUCTOR_CACHE_DIR="$TMPDIR/inductor"'
            )
        return [*lines, *self.setup]


def quoted(value: str) -> str:
    """Put a value in double quotes, in which the shell still expands variables."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("`", "\\`") + '"'


def find_profile() -> ClusterConfig:
    """Read the profile that the environment variable CORRFLOW_CLUSTER names, which `--cluster`
    sets; the defaults if it is empty.

    `NAME` stands for `NAME.toml` in the user's folder (~/.config/corrflow/clusters) or the
    project's (slurm/clusters). A value with a slash, or one that ends with .toml, is a path.

    Raises:
        ClusterError: the profile does not exist or is not valid.
    """
    name = os.environ.get(PROFILE_VARIABLE, "")
    if not name:
        return ClusterConfig()
    if name.endswith(".toml") or "/" in name:
        return read_profile(Path(name).expanduser())
    for folder in (OWN_PROFILES.expanduser(), PROFILES):
        if (path := folder / f"{name}.toml").exists():
            return read_profile(path)
    known = sorted(
        path.stem
        for folder in (OWN_PROFILES.expanduser(), PROFILES)
        for path in folder.glob("*.toml")
    )
    raise ClusterError(
        f"cluster {name!r}: expected a path to a TOML file, or one of {', '.join(known)}"
    )


def read_profile(path: Path) -> ClusterConfig:
    """Read a profile from its file; ClusterError if it is not valid."""
    try:
        profile = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ClusterError(f"cluster {path}: {getattr(error, 'strerror', None) or error}") from None
    types = get_type_hints(ClusterConfig)
    for name, value in profile.items():
        if name not in types:
            raise ClusterError(
                f"cluster {path}: {name}: not known, expected one of "
                f"{', '.join(f.name for f in fields(ClusterConfig))}"
            )
        if not fits(value, types[name]):
            raise ClusterError(
                f"cluster {path}: {name} = {value!r}: expected {described(types[name])}"
            )
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in profile.items()
    }
    try:
        return ClusterConfig(**settings)
    except ClusterError as error:
        raise ClusterError(f"{path}: {error}") from None


def fits(value: Any, wanted: Any) -> bool:
    """Whether a TOML value has the type of a field."""
    if get_origin(wanted) is Literal:
        return value in get_args(wanted)
    if get_origin(wanted) is tuple:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if get_origin(wanted) is dict:
        return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    return isinstance(value, (int, float) if wanted is float else wanted) and not isinstance(
        value, bool
    )


def described(wanted: Any) -> str:
    """A field's type in words."""
    if get_origin(wanted) is Literal:
        return " or ".join(get_args(wanted))
    words = {
        tuple: "a list of strings",
        dict: "a table of strings",
        int: "a whole number",
        float: "a number",
        str: "a string",
    }
    return words[get_origin(wanted) or wanted]
