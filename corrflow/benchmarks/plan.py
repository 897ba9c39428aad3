"""The plan of an evaluation: what is evaluated, which job does which part, and what is finished.
All of it is kept in files in the evaluation's folder; nothing is computed here.

`plan.json` holds the settings that decide the figures. `sequences/NAME.json` is written last and
marks a sequence as finished; `NAME.failed` says why one failed.
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
# increase this when the code gives other figures for the same settings: finished sequences are then
# evaluated again
RESULTS_VERSION = 4


@dataclass(frozen=True)
class Evaluation:
    """The settings of an evaluation: everything that decides the figures."""

    benchmark: str
    """The benchmark's name."""
    root: str
    """Folder of the data, absolute."""
    name: str
    """The name in tables."""
    protocol: Protocol
    weights: str = ""
    """Digest of the model's weights; empty if no model is used."""
    checkpoint: str = "none"
    """Where the jobs find the weights; the file may be moved, since the digest identifies it."""
    encoder: str = ""
    """Name of an encoder to evaluate with its published weights or, if `checkpoint` is none, with
    random ones."""
    seed: int = 0
    """Seed of random weights."""
    input_scale: float = 0.0
    """Factor by which frames are enlarged before they are encoded; 0 for the model's own."""
    adapt: int = 0
    """Number of steps by which the model is adapted to each sequence before tracking."""
    size: int = 0
    """Short side at which sequences are tracked, in pixels; 0 for their own size."""
    reset_gap: int = 0
    """Track each frame only from the true mask this many frames before; 0 tracks from the given
    labels, as the benchmark defines."""
    device: str = "auto"
    """As requested by the user."""
    attention: str = "auto"
    """As requested by the user."""
    precision: Precision = "auto"
    """As requested by the user."""


@dataclass(frozen=True)
class SequenceRecord:
    """The result of one sequence."""

    digest: str
    """Digest of the plan and the sequence's data."""
    scores: dict[str, Scores]
    """Scores of each object; empty if the truth is not public."""
    frames: int
    seconds: float
    """Time of propagation, including reading the frames."""
    peak_bytes: int
    """Peak memory of the process so far; on CUDA, of the device."""
    threads: int
    computed: str
    """Device, attention and precision: what the rounding of results may depend on."""


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation with its sequences and digests."""

    out: Path
    evaluation: Evaluation
    sequences: tuple[Sequence, ...]
    digest: str
    """Digest of the settings that decide the figures."""
    data_digests: Mapping[str, str]
    """Digest of each sequence's files, by name."""

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark."""
        return find_benchmark(self.evaluation.benchmark)

    @property
    def frames(self) -> int:
        """Number of frames in all sequences."""
        return sum(sequence.length for sequence in self.sequences)

    def left(self) -> list[Sequence]:
        """The sequences that are not finished."""
        return [sequence for sequence in self.sequences if not self.result(sequence)]

    def share(self, number: int, count: int) -> list[Sequence]:
        """The sequences of job `number` of `count`, counted from 0; may be empty if there are fewer
        sequences than jobs."""
        return [
            self.sequences[index]
            for index in assign_jobs([sequence.length for sequence in self.sequences], count)[
                number
            ]
        ]

    def result(self, sequence: Sequence) -> SequenceRecord | None:
        """The record of a finished sequence; None if there is none, or it is damaged, or the data
        have changed."""
        try:
            record = SequenceRecord(**read_json(self.out / RESULTS / f"{sequence.name}.json"))
        except (InputError, TypeError):  # TypeError: other JSON
            return None
        return record if record.digest == self.digest_of(sequence) else None

    def digest_of(self, sequence: Sequence) -> str:
        """A digest of everything that decides the figures of a sequence."""
        return f"{self.digest}-{self.data_digests[sequence.name]}"

    def keep(self, sequence: Sequence, done: SequenceRecord) -> None:
        """Write the record of a finished sequence."""
        write_json(self.out / RESULTS / f"{sequence.name}.json", vars(done))
        self.failure_path(sequence).unlink(missing_ok=True)

    def failure_path(self, sequence: Sequence) -> Path:
        """The path of the file that says why a sequence failed."""
        return self.out / RESULTS / f"{sequence.name}.failed"


def assign_jobs(frames: list[int], count: int) -> list[list[int]]:
    """Divide sequences among `count` jobs: the longest first, each to the job with the fewest
    frames so far."""
    parts: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for index in sorted(range(len(frames)), key=lambda i: (-frames[i], i)):
        job = loads.index(min(loads))
        parts[job].append(index)
        loads[job] += frames[index]
    return parts


def prepare(evaluation: Evaluation, out: Path) -> EvaluationPlan:
    """Plan an evaluation and write the plan; InputError as in `make_plan` and `begin`."""
    plan = make_plan(evaluation, out)
    begin(plan)
    return plan


def begin(plan: EvaluationPlan) -> None:
    """Write the plan into its folder, or check that the folder already holds the same evaluation.

    Raises:
        InputError: the folder holds another evaluation (the message names what differs), or can't
            be written to.
    """
    out = plan.out
    path = out / PLAN
    stored = read_settings(out) if path.exists() else None
    claim_folder(path, stored, settings(plan), "another evaluation", is_path_or_name)
    for sequence in plan.sequences:  # failed ones are tried again
        plan.failure_path(sequence).unlink(missing_ok=True)


def read_plan(out: Path) -> EvaluationPlan:
    """Read the plan that `prepare` wrote to `out`; InputError if there is none, it is damaged, or
    the data have changed since."""
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
    plan = make_plan(evaluation, out)
    if different := differences(stored, settings(plan), is_path_or_name):
        raise InputError(
            f"{out}: the data have changed: {listing(different)}: expected them as before"
        )
    return plan


def read_settings(out: Path) -> dict[str, Any]:
    """Read the settings of the plan in `out`; InputError if there is none or it is damaged."""
    if not (out / PLAN).exists():
        raise InputError(f"{out}: no evaluation was started there")
    stored = read_json(out / PLAN)
    if not isinstance(stored, dict) or not all(
        isinstance(stored.get(name), dict) for name in ("protocol", RESULTS)
    ):
        raise InputError(
            f"{out / PLAN}: not what this version writes: expected settings, with protocol and "
            f"{RESULTS} among them"
        )
    return stored


def make_plan(evaluation: Evaluation, out: Path) -> EvaluationPlan:
    """Plan an evaluation of the sequences that are found under its root; writes nothing.

    Raises:
        InputError: data are incomplete; there is no sequence; two sequences have the same name, so
            their files would collide; `reset_gap` is set but there is no truth.
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
            f"{evaluation.root}: {evaluation.benchmark} has two sequences {few(twice)}: expected "
            "different names"
        )
    if evaluation.reset_gap:
        find_benchmark(evaluation.benchmark).ground_truth(sequences[0])
    named = {
        name: value
        for name, value in settings(EvaluationPlan(out, evaluation, sequences, "", {})).items()
        if not is_path_or_name(name)
    }
    return EvaluationPlan(
        out,
        evaluation,
        sequences,
        hashlib.sha256(json.dumps([RESULTS_VERSION, named]).encode()).hexdigest()[:16],
        {sequence.name: sequence_digest(sequence) for sequence in sequences},
    )


def settings(plan: EvaluationPlan) -> dict[str, Any]:
    """The settings that decide the figures, and each sequence's length, in plain types."""
    evaluation: dict[str, Any] = json.loads(json.dumps(asdict(plan.evaluation)))
    return {**evaluation, RESULTS: {sequence.name: sequence.length for sequence in plan.sequences}}


def sequence_digest(sequence: Sequence) -> str:
    """A digest of a sequence's data, independent of its folder: names and sizes of files, since
    reading them all would take minutes, and the data that are already in memory."""
    digest = hashlib.sha256()
    for part in parts_of([getattr(sequence, field.name) for field in fields(sequence)]):
        digest.update(part)
    return digest.hexdigest()[:16]


def parts_of(value: Any) -> Iterator[bytes]:
    """The parts of a value that go into a sequence's digest."""
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


def is_path_or_name(name: str) -> bool:
    """Whether a setting is only a path or a name, and so does not decide the figures."""
    return name in ("checkpoint", "root", "name")


@contextmanager
def recording_failure(plan: EvaluationPlan, sequences: list[Sequence]) -> Iterator[None]:
    """Record an error raised in the block in the `.failed` file of the first unfinished sequence,
    so that whoever merges the results can report it."""
    try:
        yield
    except Exception as error:
        failed = next((sequence for sequence in sequences if not plan.result(sequence)), None)
        if failed:
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            # this fails, too, if the disk is full; the original error is the one to report
            with suppress(OSError), atomic_file(plan.failure_path(failed)) as file:
                file.write(f"{kind}{error}".encode())
        raise


def missing(plan: EvaluationPlan, left: list[Sequence]) -> str:
    """An error message: which sequences are not finished, and why, where a job recorded it."""
    messages = [
        path.read_text() for sequence in left if (path := plan.failure_path(sequence)).exists()
    ]
    reasons = f"; {'; '.join(dict.fromkeys(messages[:NAMED]))}" if messages else ""
    names = few([sequence.name for sequence in left])
    return (
        f"{plan.out}: {len(left)} of {len(plan.sequences)} sequences are not done ({names}): the "
        f"same command resumes it{reasons}"
    )
