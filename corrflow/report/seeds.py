"""Averages runs that differ only by their seed, to show how good a setting is, rather than a single
training."""

import math
from dataclasses import replace

from corrflow.benchmarks.benchmark import Scores
from corrflow.benchmarks.results import Result, SequenceResult
from corrflow.errors import InputError
from corrflow.metrics import mean, mean_over


def average_seeds(results: list[Result], seeds: int) -> list[Result]:
    """Average every `seeds` consecutive results to one, which has their mean figures and the first
    one's pictures.

    Raises:
        InputError: the number of results is not a multiple of `seeds`, or those to be averaged
            differ in benchmark, protocol, sequences or objects.
    """
    if len(results) % seeds:
        raise InputError(
            f"report: {len(results)} runs, seeds {seeds}: expected as many runs of each setting as "
            "seeds, one setting after the other"
        )
    firsts = range(0, len(results), seeds)
    return [average(results[first : first + seeds]) for first in firsts]


def average(results: list[Result]) -> Result:
    """The mean of runs of one setting."""
    first, *others = results
    if not others:
        return first
    for other in others:
        if kind(other) != kind(first):
            raise InputError(
                f"report: {other.out}: expected the benchmark, protocol, sequences and objects of "
                f"{first.out}, with which it is averaged"
            )
    return replace(
        first,
        name=f"{first.name}, mean of {len(results)} seeds",
        overall=mean_figures([result.overall for result in results]),
        sequences={
            name: average_sequence([result.sequences[name] for result in results])
            for name in first.sequences
        },
        peak_bytes=max(result.peak_bytes for result in results),
    )


def kind(result: Result) -> tuple[object, ...]:
    """What must be the same in all seeds of a setting."""
    objects = {
        name: {key: sorted(scores) for key, scores in sequence.scores.items()}
        for name, sequence in result.sequences.items()
    }
    return result.benchmark, result.protocol, result.reset_gap, objects


def average_sequence(sequences: list[SequenceResult]) -> SequenceResult:
    """The mean of one sequence's figures and curves."""
    return SequenceResult(
        sequences[0].frames,
        mean([sequence.seconds for sequence in sequences]),
        {
            name: average_scores([sequence.scores[name] for sequence in sequences])
            for name in sequences[0].scores
        },
        mean_figures([sequence.figures for sequence in sequences]),
    )


def average_scores(scores: list[Scores]) -> Scores:
    """The mean of one object's measures, frame by frame."""
    return {measure: mean_over([one[measure] for one in scores]).tolist() for measure in scores[0]}


def mean_figures(figures: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure over runs."""
    return {column: mean([one.get(column, math.nan) for one in figures]) for column in figures[0]}
