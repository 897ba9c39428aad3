"""What is asked of the cluster for a job: a profile in TOML, changed by flags."""

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
    """What a SLURM job asks for; `--cluster NAME|PATH` reads it from a TOML file. What is left
    empty is the cluster's own default."""

    partition: str = ""
    """Partition (queue) of the jobs."""
    account: str = ""
    """Account that the jobs are charged to."""
    qos: str = ""
    """Quality of service of the jobs."""
    constraint: str = ""
    """Features that the nodes must have, as sbatch --constraint takes them."""
    nodelist: str = ""
    """Nodes that the job must have."""
    exclude: str = ""
    """Nodes that the job must not have."""
    gpus_per_node: int = 0
    """GPUs of each node of a training job, with a process for each. If there are any, each job of
    an array that evaluates or tracks is given one; packing needs none."""
    gpu_type: str = ""
    """Type of GPU as the cluster names it, a100 for example, if it has several."""
    gpu_form: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    """How GPUs are asked for: by --gpus-per-node=8, or by --gres=gpu:8 as older clusters want
    it."""
    minutes: int = 240
    """Time limit in minutes; a job that reaches it saves, is queued again, and resumes."""
    signal_lead: int = 120
    """Seconds before the time limit at which a job is signalled to save and stop."""
    cpus: int = 4
    """Processor cores of each process."""
    memory_gb: float = 8.0
    """Memory of each process in 2^30 bytes; 0 asks for all that the node has."""
    interface: str = ""
    """Network interface that NCCL and gloo use, ib0 for example."""
    scratch: str = ""
    """Folder on the node's own disk for temporary files and compiled kernels; $VARIABLES are
    expanded on the node."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables to set, such as those of NCCL or a proxy."""
    setup: tuple[str, ...] = ()
    """Shell lines to run before the job, such as module load or conda activate."""
    container: str = ""
    """Image in which the jobs' processes run, with Python and all packages
    (slurm/containers): for apptainer a .sif file, for pyxis what its --container-image takes."""
    container_runtime: Literal["apptainer", "pyxis"] = "apptainer"
    """What runs the image: apptainer on the nodes, or SLURM's plugin pyxis."""
    container_mounts: tuple[str, ...] = ()
    """Folders that the image is to see, as FOLDER or FROM:TO: those of runs, shards and data.
    Apptainer mounts the home folder and the working directory by itself."""

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
        """Parameters as submitit takes them, for nodes with `processes` processes each."""
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
            # since 22.05 srun does not take over what sbatch was given, and its processes would
            # share one core
            "slurm_srun_args": [
                f"--cpus-per-task={self.cpus}",
                "--kill-on-bad-exit=1",
                *self.pyxis_arguments(),
            ],
            "slurm_additional_parameters": {"requeue": True, **self.gpus()},
        }

    def pyxis_arguments(self) -> list[str]:
        """srun's, for an image that the plugin pyxis runs."""
        if not self.container or self.container_runtime != "pyxis":
            return []
        mounts = ",".join(self.mounts())
        return [
            f"--container-image={self.container}",
            *([f"--container-mounts={mounts}"] if mounts else []),
            "--no-container-mount-home",
        ]

    def python(self) -> str | None:
        """The command that the jobs run Python by; None for this process's own."""
        if not self.container:
            return None
        if self.container_runtime == "pyxis":
            return "python"
        binds = "".join(f" --bind {shlex.quote(mount)}" for mount in self.mounts())
        return f"apptainer exec --nv{binds} {shlex.quote(self.container)} python"

    def mounts(self) -> list[str]:
        """As FROM:TO."""
        return [m if ":" in m else f"{m}:{m}" for m in self.container_mounts]

    def gpus(self) -> dict[str, str]:
        """The flag that asks for them."""
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
        """Shell lines that come before the job's command."""
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
    """In double quotes, where the shell still replaces variables."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("`", "\\`") + '"'


def find_profile() -> ClusterConfig:
    """The profile that the environment variable names, or `--cluster` in its place; the defaults if
    none.

    `NAME` stands for `NAME.toml` among the user's own (~/.config/corrflow/clusters) or the
    project's (slurm/clusters); what has a slash, or ends with .toml, is a path.

    Raises:
        ClusterError: there is none; or it is no such TOML.
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
    """A profile from its file."""
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
    """Whether a TOML value is what a field holds."""
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
