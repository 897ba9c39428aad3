"""The data of one benchmark given to another: the error names the benchmark whose data they look
like."""

import pytest
from miniatures import badja, davis_test, jhmdb, tapvid, vip, youtube_vos

from corrflow import InputError
from corrflow.benchmarks.folders import looks_like
from corrflow.benchmarks.registry import BENCHMARKS, find_benchmark

BUILT = {
    "davis2017-test": davis_test,
    "youtube-vos": youtube_vos,
    "jhmdb": jhmdb,
    "vip": vip,
    "badja": badja,
    "tapvid": lambda root: tapvid(root / "tapvid_davis.pkl"),
}


@pytest.fixture(scope="module")
def roots(tree, tmp_path_factory):
    """The folder of a miniature of each benchmark, by name."""
    made = {"davis2017": tree}
    for name, build in BUILT.items():
        made[name] = tmp_path_factory.mktemp(name)
        build(made[name])
    return made


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_data_of_each_other_benchmark_are_recognised(roots, name):
    family = {"davis2016": "davis2017", "vip-instances": "vip"}
    own = family.get(name, name)  # the benchmark that reads the same data
    for other, root in roots.items():
        assert looks_like(root) == other
        if other == own:
            assert BENCHMARKS[name].read(root)
            continue
        with pytest.raises(InputError) as error:
            BENCHMARKS[name].read(root)
        message = str(error.value)
        assert message.endswith(f"{root} looks like {other}: --benchmark {other}"), message
        assert "\n" not in message


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_folder_of_no_benchmark_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"no such (file|folder): expected [^;]*$"):
        BENCHMARKS[name].read(tmp_path)
    with pytest.raises(InputError, match=r"no such (file|folder): expected [^;]*$"):
        BENCHMARKS[name].read(tmp_path / "nowhere")


def test_an_unknown_benchmark_is_refused_with_the_names():
    with pytest.raises(
        InputError,
        match=(
            "benchmark 'kinetics': expected one of davis2016, davis2017, davis2017-test, "
            "youtube-vos, jhmdb"
        ),
    ):
        find_benchmark("kinetics")
