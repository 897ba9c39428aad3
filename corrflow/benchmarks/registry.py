"""The benchmarks by name."""

from corrflow.benchmarks.badja import Badja
from corrflow.benchmarks.benchmark import Benchmark
from corrflow.benchmarks.davis import Davis, DavisTest
from corrflow.benchmarks.jhmdb import Jhmdb
from corrflow.benchmarks.tapvid import TapVid
from corrflow.benchmarks.vip import Vip, VipInstances
from corrflow.benchmarks.youtube_vos import YouTubeVos
from corrflow.errors import InputError

ALL: tuple[Benchmark, ...] = (
    Davis(2016), Davis(2017), DavisTest(), YouTubeVos(), Jhmdb(), Vip(), VipInstances(), Badja(),
    TapVid(),
)  # fmt: skip
BENCHMARKS = {benchmark.name: benchmark for benchmark in ALL}


def find_benchmark(name: str) -> Benchmark:
    """Find a benchmark by its name; InputError lists the names."""
    if name not in BENCHMARKS:
        raise InputError(f"benchmark {name!r}: expected one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
