"""Which benchmarks there are, by name."""

from corrflow.benchmarks.benchmark import Benchmark
from corrflow.benchmarks.davis import Davis
from corrflow.errors import InputError

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in (Davis(2016), Davis(2017))}


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by its name; InputError lists the names."""
    if name not in BENCHMARKS:
        raise InputError(f"benchmark {name!r}: expected one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
