import pytest

from slurm import ClusterError
from slurm.cluster import PROFILES, ClusterConfig, find_profile


@pytest.fixture
def named(monkeypatch):
    """The profile of a name."""

    def find(name):
        monkeypatch.setenv("CORRFLOW_CLUSTER", name)
        return find_profile()

    return find


def test_the_example_is_a_profile(named):
    found = named("example")
    assert (found.partition, found.gpus_per_node, found.setup) == (
        "gpu",
        8,
        ("module load cuda/12.8",),
    )
    assert named(str(PROFILES / "example.toml")) == found


def test_a_users_own_profile_comes_before_the_projects(tmp_path, monkeypatch, named):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".config/corrflow/clusters"
    folder.mkdir(parents=True)
    (folder / "example.toml").write_text(
        'partition = "mine"\ncontainer_mounts = ["/data", "/scratch"]\n'
    )
    assert named("example") == ClusterConfig(
        partition="mine", container_mounts=("/data", "/scratch")
    )


def test_without_a_name_there_are_the_defaults(monkeypatch):
    monkeypatch.delenv("CORRFLOW_CLUSTER", raising=False)
    assert find_profile() == ClusterConfig()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("partiton = 'gpu'", "partiton: not known, expected one of partition, account"),
        ("cpus = 'four'", "cpus = 'four': expected a whole number"),
        ("cpus = true", "cpus = True: expected a whole number"),
        ("gpu_form = 'gpu'", "expected gpus-per-node or gres"),
        ("setup = 'module load cuda'", "expected a list of strings"),
        ("environment = {A = 1}", "expected a table of strings"),
        ("cpus = 0", "cluster: cpus 0: expected 1 or more"),
        ("minutes = 1\nsignal_lead = 60", "expected less than the time limit of 1 minutes"),
        ("cpus 4", "profile.toml: "),
    ],
)
def test_a_mistake_in_a_profile_is_named_with_its_file(tmp_path, named, text, words):
    path = tmp_path / "profile.toml"
    path.write_text(text)
    with pytest.raises(ClusterError, match=r"profile\.toml") as caught:
        named(str(path))
    assert words in str(caught.value)


def test_a_profile_that_is_not_there_is_refused_with_those_that_are(named):
    with pytest.raises(
        ClusterError,
        match=r"cluster 'nowhere': expected a path to a TOML file, or one of .*example",
    ):
        named("nowhere")
    with pytest.raises(ClusterError, match="No such file"):
        named("no/where.toml")


@pytest.mark.parametrize(
    ("config", "flag"),
    [
        (ClusterConfig(), {}),
        (ClusterConfig(gpus_per_node=8), {"gpus-per-node": "8"}),
        (ClusterConfig(gpus_per_node=4, gpu_type="a100"), {"gpus-per-node": "a100:4"}),
        (ClusterConfig(gpus_per_node=4, gpu_type="a100", gpu_form="gres"), {"gres": "gpu:a100:4"}),
    ],
)
def test_gpus_are_asked_for_as_the_cluster_wants_it(config, flag):
    assert config.gpus() == flag


def test_needs_are_told_for_each_process():
    found = ClusterConfig(cpus=3, memory_gb=1.5, minutes=60, partition="p").parameters(processes=4)
    assert (
        found["slurm_mem"],
        found["cpus_per_task"],
        found["tasks_per_node"],
        found["slurm_partition"],
    ) == ("6144M", 3, 4, "p")
    assert "slurm_account" not in found
    assert ClusterConfig(memory_gb=0).parameters()["slurm_mem"] == "0"


def test_a_jobs_shell_gets_its_variables(tmp_path):
    import subprocess

    config = ClusterConfig(
        interface="ib0",
        scratch=f"{tmp_path}/$WHO",
        environment={"TOLD": 'a "b" `c` $WHO'},
        setup=("export LAST=$TMPDIR",),
    )
    script = "\n".join(
        [
            *config.setup_lines(),
            'echo "$TOLD|$NCCL_SOCKET_IFNAME|$GLOO_SOCKET_IFNAME|$LAST|$TRITON_CACHE_DIR"',
        ]
    )
    told = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"WHO": "me", "PATH": "/usr/bin:/bin"},
    )
    assert told.stdout.strip() == f'a "b" `c` me|ib0|ib0|{tmp_path}/me|{tmp_path}/me/triton'
    assert (tmp_path / "me").is_dir()
