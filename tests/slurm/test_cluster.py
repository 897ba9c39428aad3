import pytest

from slurm import ClusterError
from slurm.cluster import PROFILES, ClusterConfig, find_profile


@pytest.fixture
def read_named(monkeypatch):
    """A function that reads the profile that CORRFLOW_CLUSTER names."""

    def find(name):
        monkeypatch.setenv("CORRFLOW_CLUSTER", name)
        return find_profile()

    return find


def test_the_example_profile_can_be_read_by_name_and_by_path(read_named):
    found = read_named("example")
    assert (found.partition, found.gpus_per_node, found.setup) == (
        "gpu",
        8,
        ("module load cuda/12.8",),
    )
    assert read_named(str(PROFILES / "example.toml")) == found


def test_a_users_profile_takes_precedence_over_the_projects(tmp_path, monkeypatch, read_named):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".config/corrflow/clusters"
    folder.mkdir(parents=True)
    (folder / "example.toml").write_text(
        'partition = "mine"\ncontainer_mounts = ["/data", "/scratch"]\n'
    )
    assert read_named("example") == ClusterConfig(
        partition="mine", container_mounts=("/data", "/scratch")
    )


def test_without_a_profile_name_the_defaults_apply(monkeypatch):
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
def test_a_mistake_in_a_profile_is_reported_with_its_file(tmp_path, read_named, text, words):
    path = tmp_path / "profile.toml"
    path.write_text(text)
    with pytest.raises(ClusterError, match=r"profile\.toml") as caught:
        read_named(str(path))
    assert words in str(caught.value)


def test_a_missing_profile_is_refused_with_a_list_of_existing_ones(read_named):
    with pytest.raises(
        ClusterError,
        match=r"cluster 'nowhere': expected a path to a TOML file, or one of .*example",
    ):
        read_named("nowhere")
    with pytest.raises(ClusterError, match="No such file"):
        read_named("no/where.toml")


@pytest.mark.parametrize(
    ("config", "flag"),
    [
        (ClusterConfig(), {}),
        (ClusterConfig(gpus_per_node=8), {"gpus-per-node": "8"}),
        (ClusterConfig(gpus_per_node=4, gpu_type="a100"), {"gpus-per-node": "a100:4"}),
        (ClusterConfig(gpus_per_node=4, gpu_type="a100", gpu_form="gres"), {"gres": "gpu:a100:4"}),
    ],
)
def test_gpus_are_requested_in_the_form_that_the_cluster_requires(config, flag):
    assert config.gpus() == flag


def test_resources_are_requested_for_all_processes_of_a_node():
    found = ClusterConfig(cpus=3, memory_gb=1.5, minutes=60, partition="p").parameters(processes=4)
    assert (
        found["slurm_mem"],
        found["cpus_per_task"],
        found["tasks_per_node"],
        found["slurm_partition"],
    ) == ("6144M", 3, 4, "p")
    assert "slurm_account" not in found
    assert ClusterConfig(memory_gb=0).parameters()["slurm_mem"] == "0"


def test_the_setup_lines_set_a_jobs_environment_variables(tmp_path):
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
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"WHO": "me", "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout.strip() == f'a "b" `c` me|ib0|ib0|{tmp_path}/me|{tmp_path}/me/triton'
    assert (tmp_path / "me").is_dir()
