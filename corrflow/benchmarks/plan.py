"""What an evaluation is of, who does which part of it, and what is done: all of it in files of its
folder. Computes nothing.

`plan.json` holds what decides the figures. `sequences/NAME.json`, written last, is the sign that a
sequence is done; `NAME.failed` says why it could not be.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corrflow.benchmarks.benchmark import NAMED, Benchmark, Scores, Sequence, few
from corrflow.benchmarks.records import read_json, write_json
from corrflow.benchmarks.registry import find_benchmark
from corrflow.device import Precision
from corrflow.errors import InputError
from corrflow.files import atomic_file
from corrflow.propagation import Protocol
from corrflow.stored_config import claim_folder, differences, listing

PLAN, RESULTS = "plan.json", "sequences"
# raised when the same settings come to give other figures: what was done before is then done again
COMPUTES = 4


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated on what: all that decides the figures."""

    benchmark: str
    """Its name."""
    root: str
    """Folder of the data, absolute."""
    name: str
    """What the tables call it."""
    protocol: Protocol
    weights: str = ""
    """Digest of the model's; empty where none is used."""
    checkpoint: str = "none"
    """Where the jobs find the weights; it may move, since the digest tells them."""
    encoder: str = ""
    """Name of an encoder that is evaluated with its published weights or, if `checkpoint` is none,
    with random ones."""
    seed: int = 0
    """Of random weights."""
    input_scale: float = 0.0
    """How many times frames are enlarged before they are encoded; 0: as the model has it."""
    adapt: int = 0
    """Steps by which the model is adapted to each sequence before it is tracked."""
    size: int = 0
    """Short side at which it is tracked, in pixels; 0: the data's own."""
    reset_gap: int = 0
    """Each frame is tracked from the truth of so many frames before, and nothing else; 0: from what
    is given, as the benchmark has it."""
    device: str = "auto"
    """As asked."""
    attention: str = "auto"
    """As asked."""
    precision: Precision = "auto"
    """As asked."""


@dataclass(frozen=True)
class SequenceRecord:
    """What came of a sequence."""

    digest: str
    """Of the plan and the data it was done for."""
    scores: dict[str, Scores]
    """Of each object; none where the truth is not public."""
    frames: int
    seconds: float
    """Of propagation alone, reading the frames included."""
    peak_bytes: int
    """Memory of the process at its most so far; on CUDA, the device's."""
    threads: int
    computed: str
    """On what, by what: what rounding may depend on."""


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation, begun."""

    out: Path
    evaluation: Evaluation
    sequences: tuple[Sequence, ...]
    digest: str
    """Of the settings that decide the figures."""
    data_digests: Mapping[str, str]
    """Of the files of each sequence."""

    @property
    def benchmark(self) -> Benchmark:
        """Its rules."""
        return find_benchmark(self.evaluation.benchmark)

    @property
    def frames(self) -> int:
        """In all sequences."""
        return sum(sequence.length for sequence in self.sequences)

    def left(self) -> list[Sequence]:
        """The sequences that are still to be done."""
        return [sequence for sequence in self.sequences if not self.result(sequence)]

    def share(self, number: int, count: int) -> list[Sequence]:
        """What the `number`-th of `count` jobs does; nothing if there are fewer sequences than
        jobs."""
        return [
            self.sequences[index]
            for index in deal([sequence.length for sequence in self.sequences], count)[number]
        ]

    def result(self, sequence: Sequence) -> SequenceRecord | None:
        """What came of it; None if it is still to be done, or to be done again since its record is
        damaged or its data have changed."""
        try:
            record = SequenceRecord(**read_json(self.out / RESULTS / f"{sequence.name}.json"))
        except (InputError, TypeError):  # TypeError: JSON of something else
            return None
        return record if record.digest == self.digest_of(sequence) else None

    def digest_of(self, sequence: Sequence) -> str:
        """Names all that decides the figures of a sequence."""
        return f"{self.digest}-{self.data_digests[sequence.name]}"

    def keep(self, sequence: Sequence, done: SequenceRecord) -> None:
        """Leave what came of it."""
        write_json(self.out / RESULTS / f"{sequence.name}.json", vars(done))
        self.failure_path(sequence).unlink(missing_ok=True)

    def failure_path(self, sequence: Sequence) -> Path:
        """Says why a sequence could not be done."""
        return self.out / RESULTS / f"{sequence.name}.failed"


def deal(frames: list[int], count: int) -> list[list[int]]:
    """Sequences to `count` jobs: the longest first, each to the job that has the fewest frames so
    far."""
    hands: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for index in sorted(range(len(frames)), key=lambda i: (-frames[i], i)):
        job = loads.index(min(loads))
        hands[job].append(index)
        loads[job] += frames[index]
    return hands


def prepare(evaluation: Evaluation, out: Path) -> EvaluationPlan:
    """Plan an evaluation and begin it; InputError as `plan_of` and `begin`."""
    plan = plan_of(evaluation, out)
    begin(plan)
    return plan


def begin(plan: EvaluationPlan) -> None:
    """Leave the plan in its folder, or find there that this evaluation was begun before.

    Raises:
        InputError: the folder holds another evaluation, names what differs; or can't be written to.
    """
    out = plan.out
    path = out / PLAN
    stored = read_settings(out) if path.exists() else None
    claim_folder(path, stored, settings(plan), "another evaluation", is_place)
    for sequence in plan.sequences:  # they are tried again
        plan.failure_path(sequence).unlink(missing_ok=True)


def read_plan(out: Path) -> EvaluationPlan:
    """What `prepare` left in `out`; InputError if there is nothing, if it is damaged, or if the
    data have changed since."""
    stored = read_settings(out)
    plain = {name: value for name, value in stored.items() if name != RESULTS}
    protocol_fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in stored["protocol"].items()
    }
    try:
        evaluation = Evaluation(**{**plain, "protocol": Protocol(**protocol_fields)})
    except TypeError as error:
        raise InputError(f"{out / PLAN}: not what this version writes ({error})") from None
    plan = plan_of(evaluation, out)
    if different := differences(stored, settings(plan), is_place):
        raise InputError(
            f"{out}: the data have changed: {listing(different)}: expected them as before"
        )
    return plan


def read_settings(out: Path) -> dict[str, Any]:
    """What the plan in `out` says; InputError if there is none, or if it is damaged."""
    if not (out / PLAN).exists():
        raise InputError(f"{out}: no evaluation was begun there")
    stored = read_json(out / PLAN)
    if not isinstance(stored, dict) or not all(
        isinstance(stored.get(name), dict) for name in ("protocol", RESULTS)
    ):
        raise InputError(
            f"{out / PLAN}: not what this version writes: expected settings, with protocol and "
            f"{RESULTS} among them"
        )
    return stored


def plan_of(evaluation: Evaluation, out: Path) -> EvaluationPlan:
    """Plan an evaluation of the sequences as they lie there; writes nothing.

    Raises:
        InputError: data that is not whole; no sequence, or two of one name, whose files would be
            the same; no truth to reset to.
    """
    sequences = tuple(find_benchmark(evaluation.benchmark).read(Path(evaluation.root)))
    names = [sequence.name for sequence in sequences]
    if not names:
        raise InputError(
            f"{evaluation.root}: its list for {evaluation.benchmark} names no sequence: nothing to "
            "evaluate"
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(
            f"{evaluation.root}: {evaluation.benchmark} has two sequences {few(twice)}: expected a "
            "name of its own for each"
        )
    if evaluation.reset_gap:
        find_benchmark(evaluation.benchmark).ground_truth(sequences[0])
    named = {
        name: value
        for name, value in settings(EvaluationPlan(out, evaluation, sequences, "", {})).items()
        if not is_place(name)
    }
    return EvaluationPlan(
        out,
        evaluation,
        sequences,
        hashlib.sha256(json.dumps([COMPUTES, named]).encode()).hexdigest()[:16],
        {sequence.name: sequence_digest(sequence) for sequence in sequences},
    )


def settings(plan: EvaluationPlan) -> dict[str, Any]:
    """All that decides the figures, in plain types."""
    evaluation: dict[str, Any] = json.loads(json.dumps(asdict(plan.evaluation)))
    return {**evaluation, RESULTS: {sequence.name: sequence.length for sequence in plan.sequences}}


def sequence_digest(sequence: Sequence) -> str:
    """Names what a sequence holds, wherever it lies: its files by name and size, since to read them
    all would take minutes, and what was read of it already."""
    digest = hashlib.sha256()
    for part in parts_of([getattr(sequence, field.name) for field in fields(sequence)]):
        digest.update(part)
    return digest.hexdigest()[:16]


def parts_of(value: Any) -> Iterator[bytes]:
    """What of a sequence goes into its digest."""
    if isinstance(value, Path):
        size = value.stat().st_size if value.exists() else "missing"
        yield f"{value.name} {size}\n".encode()
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape}\n".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from parts_of(item)
    elif is_dataclass(value):
        yield from parts_of([getattr(value, field.name) for field in fields(value)])
    else:
        yield f"{value!r}\n".encode()


def is_place(name: str) -> bool:
    """Whether a setting only says where something lies, or what it is called: digests tell what it
    is."""
    return name in ("checkpoint", "root", "name")


@contextmanager
def noting_failure(plan: EvaluationPlan, sequences: list[Sequence]) -> Iterator[None]:
    """An error on the way through `sequences` is left beside the first that is not done, for
    whoever puts the results together."""
    try:
        yield
    except Exception as error:
        failed = next((sequence for sequence in sequences if not plan.result(sequence)), None)
        if failed:
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            # a full disk, say, has no room for this, either: the error itself is to be told
            with suppress(OSError), atomic_file(plan.failure_path(failed)) as file:
                file.write(f"{kind}{error}".encode())
        raise


def missing(plan: EvaluationPlan, left: list[Sequence]) -> str:
    """Which sequences are not done, and why, where a job said so."""
    messages = [
        path.read_text() for sequence in left if (path := plan.failure_path(sequence)).exists()
    ]
    reasons = f"; {'; '.join(dict.fromkeys(messages[:NAMED]))}" if messages else ""
    names = few([sequence.name for sequence in left])
    return (
        f"{plan.out}: {len(left)} of {len(plan.sequences)} sequences are not done ({names}): the "
        f"same command goes on{reasons}"
    )
