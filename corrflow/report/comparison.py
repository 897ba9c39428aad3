"""Groups runs for comparison, gives them labels, and computes the figures that reports show. It
writes nothing."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from corrflow.benchmarks.benchmark import Benchmark, Scores
from corrflow.benchmarks.registry import find_benchmark
from corrflow.benchmarks.results import Result
from corrflow.metrics import Interval, bootstrap_mean


@dataclass(frozen=True)
class Run:
    """A result, with its label and colour."""

    label: str
    number: int
    """Index of its colour."""
    result: Result

    def figure(self, sequence: str, column: str) -> float:
        """A figure of one sequence; NaN if the run does not have it."""
        record = self.result.sequences.get(sequence)
        return record.figures.get(column, math.nan) if record else math.nan

    def scores(self, sequence: str) -> dict[str, Scores]:
        """Scores of a sequence by object; empty if the run does not have the sequence."""
        record = self.result.sequences.get(sequence)
        return record.scores if record else {}

    @property
    def speed(self) -> float:
        """Frames per second; NaN if nothing was timed."""
        return self.result.frames / self.result.seconds if self.result.seconds else math.nan


@dataclass(frozen=True)
class PairedDifference:
    """The differences of a run to a baseline run, sequence by sequence."""

    run: Run
    baseline: Run
    column: str
    gains: dict[str, float]
    """By sequence, for those of which both have a figure."""

    @property
    def interval(self) -> Interval:
        """The mean gain and its confidence interval over sequences."""
        return bootstrap_mean(list(self.gains.values()))

    def __str__(self) -> str:
        most = max(self.gains, key=lambda name: self.gains[name])
        least = min(self.gains, key=lambda name: self.gains[name])
        better = sum(gain > 0 for gain in self.gains.values())
        interval = self.interval
        text = (
            f"{self.run.label} against {self.baseline.label}: better in {better} of "
            f"{plural(len(self.gains), 'sequence')}, {short(self.column)} "
            f"{signed(interval.mean)} on average"
        )
        if not math.isnan(interval.low):
            verdict = "more than chance" if interval.excludes_zero else "may be chance"
            text += f" (95 % interval {signed(interval.low)} to {signed(interval.high)}: {verdict})"
        gains, losses = signed(self.gains[most]), signed(self.gains[least])
        return f"{text}, from {losses} ({least}) to {gains} ({most})."


@dataclass(frozen=True)
class Comparison:
    """The runs on one benchmark."""

    benchmark: Benchmark
    runs: tuple[Run, ...]

    @property
    def column(self) -> str:
        """The figure that sequences are ranked by."""
        return self.benchmark.headline[0]

    @property
    def scored(self) -> bool:
        """Whether any run has figures."""
        return any(run.result.overall for run in self.runs)

    @property
    def sequences(self) -> list[str]:
        """The sequences of any run, in the benchmark's order."""
        return list(dict.fromkeys(name for run in self.runs for name in run.result.sequences))

    @property
    def shared(self) -> list[str]:
        """The sequences that all runs have."""
        return [
            name
            for name in self.sequences
            if all(name in run.result.sequences for run in self.runs)
        ]

    @property
    def differences(self) -> list[PairedDifference]:
        """The differences of each run to the first, without runs that share no figure with it."""
        first, *others = self.runs
        pairs = [
            PairedDifference(other, first, self.column, self.gains(other, first))
            for other in others
        ]
        return [pair for pair in pairs if pair.gains]

    def gains(self, run: Run, baseline: Run) -> dict[str, float]:
        """Differences by sequence, where both have a figure."""
        gains = {
            name: run.figure(name, self.column) - baseline.figure(name, self.column)
            for name in self.shared
        }
        return {name: gain for name, gain in gains.items() if not math.isnan(gain)}

    def interval(self, run: Run) -> Interval | None:
        """The confidence interval of a run's overall figure over sequences; None if that figure is
        not a mean over sequences, or there is only one sequence."""
        figures = [run.figure(name, self.column) for name in run.result.sequences]
        interval = bootstrap_mean(figures)
        overall = run.result.overall.get(self.column, math.nan)
        meant = math.isclose(interval.mean, overall, rel_tol=1e-6)
        return interval if meant and not math.isnan(interval.low) else None

    @property
    def leader(self) -> Run:
        """The run with the best overall figure."""
        return min(
            self.runs, key=lambda run: best_first(run.result.overall.get(self.column, math.nan))
        )

    @property
    def ranked(self) -> list[str]:
        """The leader's sequences, best first, without those that have no figure."""
        figures = {
            name: self.leader.figure(name, self.column) for name in self.leader.result.sequences
        }
        return sorted(
            (name for name, value in figures.items() if not math.isnan(value)),
            key=lambda name: best_first(figures[name]),
        )


def compare(results: Iterable[Result]) -> list[Comparison]:
    """Make a comparison for each benchmark, in the order of the results."""
    by_benchmark: dict[str, list[Result]] = {}
    for result in results:
        by_benchmark.setdefault(result.benchmark, []).append(result)
    return [
        Comparison(
            find_benchmark(name),
            tuple(
                Run(*numbered)
                for numbered in zip(labels(group), range(len(group)), group, strict=True)
            ),
        )
        for name, group in by_benchmark.items()
    ]


def labels(results: list[Result]) -> list[str]:
    """Label runs by their names; equal names also get their protocols, and if that does not help,
    their folders."""
    names = [result.name for result in results]
    for more in ([result.protocol for result in results], [str(result.out) for result in results]):
        alike = {
            name: {detail for other, detail in zip(names, more, strict=True) if other == name}
            for name in names
        }
        names = [
            f"{name}, {detail}" if len(alike[name]) > 1 else name
            for name, detail in zip(names, more, strict=True)
        ]
    return names


def best_first(value: float) -> tuple[bool, float]:
    """A sort key that puts the highest figure first and NaN last."""
    return math.isnan(value), -value


def best_of(column: str, values: list[float]) -> set[int]:
    """The indices of the values to mark as best: the highest, unless all are equal. None for decay,
    since an object that is lost from the start decays least."""
    best = max((value for value in values if not math.isnan(value)), default=math.nan)
    best_runs = {i for i, value in enumerate(values) if value == best}
    return set() if len(best_runs) == len(values) or column.endswith("Decay") else best_runs


def scale_of(values: Iterable[float]) -> float:
    """The end of a scale for these values: 1 for shares, at least 100 for percents."""
    highest = max((value for value in values if not math.isnan(value)), default=1.0)
    return 1.0 if highest <= 1 else max(100.0, highest)


def number(value: float) -> str:
    """Format a figure."""
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if abs(value) <= 1 else f"{value:.1f}"


def signed(value: float) -> str:
    """Format a difference with its sign."""
    return ("−" if value < 0 else "+") + number(abs(value))


def between(interval: Interval | None) -> str:
    """Format an interval."""
    return f"{number(interval.low)} to {number(interval.high)}" if interval else "–"


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: 1 frame, 2 frames."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def short(column: str) -> str:
    """A short name for a column: J-Mean is J, J-Recall is J recall, J_seen is J seen."""
    name, _, statistic = column.replace("_", " ").partition("-")
    return f"{name} {statistic.lower()}" if statistic not in ("", "Mean") else name


def memory(count: int) -> str:
    """Format bytes."""
    return f"{count / 2**30:.2f} GiB" if count else "–"


def rate(speed: float) -> str:
    """Format frames per second, with two significant digits below 1."""
    return "–" if math.isnan(speed) else f"{speed:,.1f}" if speed >= 1 else f"{speed:.2g}"
