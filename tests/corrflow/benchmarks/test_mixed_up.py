"""One benchmark's data given to another: a line says what it looks like."""

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
    """A miniature of each, by its name."""
    made = {"davis2017": tree}
    for name, build in BUILT.items():
        made[name] = tmp_path_factory.mktemp(name)
        build(made[name])
    return made


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_data_of_each_other_benchmark_are_recognised(roots, name):
    family = {"davis2016": "davis2017", "vip-instances": "vip"}
    own = family.get(name, name)  # what either of them reads
    for there, root in roots.items():
        assert looks_like(root) == there
        if there == own:
            assert BENCHMARKS[name].read(root)
            continue
        with pytest.raises(InputError) as error:
            BENCHMARKS[name].read(root)
        told = str(error.value)
        assert told.endswith(f"{root} looks like {there}: --benchmark {there}"), told
        assert "\n" not in told


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
