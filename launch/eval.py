"""Evaluate a checkpoint on a benchmark:
`python launch/eval.py --benchmark davis2016 --root ROOT --checkpoint PT --out OUT [--jobs N]`.

The same command again evaluates the sequences that are missing.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from corrflow import InputError
from corrflow.attention import choose_backend
from corrflow.benchmarks.evaluation import finish, merge, results, run_sequences
from corrflow.benchmarks.plan import (
    Evaluation,
    EvaluationPlan,
    begin,
    make_plan,
    read_plan,
    recording_failure,
)
from corrflow.benchmarks.results import Result
from corrflow.device import choose_device, share_cores
from corrflow.encoders.registry import find_encoder, name_of
from corrflow.memory import keep_freed_memory
from corrflow.model import CorrFlow, ModelConfig, seeded_model, weights_digest
from corrflow.pretrained import DEFAULT, load_model, model_path
from corrflow.progress import progress_bar
from corrflow.report import text_table, write_report
from launch.common.command import parse, run
from launch.common.job_array import LOGS, check_array_ended, submit_work
from launch.common.run_config import evaluation_lock
from launch.configs.evaluate import EvalJob
from slurm.array import Submitted, wait_for
from slurm.client import goes_to_slurm
from slurm.local import die_with_parent, is_worker_process, run_processes
from slurm.tasks import Task


def main(argv: list[str]) -> int:
    """Evaluate here, in one process or several, or through SLURM; write the report and print the
    scores."""
    job = parse(EvalJob, argv, "eval.py")
    if is_worker_process():
        return work_as_worker(job)
    keep_freed_memory()
    away = goes_to_slurm(job.jobs, job.local)
    plan = plan_job(job, away)
    with evaluation_lock(job.out):
        check_array_ended(job.out)
        begin(plan)
        return run_evaluation(job, argv, plan, away)


def run_evaluation(job: EvalJob, argv: list[str], plan: EvaluationPlan, away: bool) -> int:
    """Evaluate the sequences that are missing, here or through SLURM; returns the exit code."""
    if not plan.left():
        print("evaluated already:")
    elif away:
        submitted = submit(job, plan)
        if not job.follow:
            return 0
        if failure := follow(plan, submitted):
            raise InputError(f"job {submitted.last.job_id}: {failure}: see {job.out / LOGS}")
        print_result(plan, merge(plan))  # the last job has written everything else
        return 0
    elif job.jobs > 1:
        if code := run_processes(
            [sys.executable, __file__, *argv], min(job.jobs, len(plan.sequences))
        ):
            return code
    else:
        work(plan, 0, 1)
    print_result(plan, end(plan))
    return 0


def plan_job(job: EvalJob, away: bool) -> EvaluationPlan:
    """Plan the evaluation, without writing anything. Mistakes in flags, checkpoint or data are
    found here, before anything is submitted."""
    protocol = job.chosen_protocol
    if not away:  # a cluster's nodes may have devices that this machine lacks
        choose_backend(job.attention, choose_device(job.device), top_k=protocol.top_k)
    root, name = str(job.root.absolute()), method_name(job)
    if not protocol.propagates:
        return make_plan(
            Evaluation(job.benchmark, root, name, protocol, size=job.size, reset_gap=job.reset_gap),
            job.out,
        )
    encoder = name_of(find_encoder(job.encoder)) if job.encoder else ""
    checkpoint, seed = job.checkpoint, 0
    if checkpoint == "none":
        seed = job.seed
    elif checkpoint:
        checkpoint = str(model_path(checkpoint).absolute())
    cpu = torch.device("cpu")
    model = make_model(checkpoint, encoder, seed, job.input_scale, cpu, "auto")
    evaluation = Evaluation(
        benchmark=job.benchmark,
        root=root,
        name=name,
        protocol=protocol,
        weights=weights_digest(model),
        checkpoint=checkpoint,
        encoder=encoder,
        seed=seed,
        input_scale=job.input_scale,
        adapt=job.adapt,
        size=job.size,
        reset_gap=job.reset_gap,
        device=job.device,
        attention=job.attention,
        precision=job.precision,
    )
    return make_plan(evaluation, job.out)


def make_model(
    checkpoint: str,
    encoder: str,
    seed: int,
    input_scale: float,
    device: torch.device,
    attention: str,
) -> CorrFlow:
    """The model to evaluate: a checkpoint, the default model, an encoder of another library with
    its published weights, or a model with random weights. `input_scale` replaces the model's own
    unless it is 0."""
    config = ModelConfig(encoder=find_encoder(encoder)) if encoder else ModelConfig()
    if checkpoint == "none":
        model = seeded_model(config, seed, attention)
    elif encoder:
        model = CorrFlow(config, attention, config.encoder.build(pretrained=True))
    else:
        model = load_model(checkpoint or DEFAULT, attention=attention)
    if input_scale:
        model.config = replace(model.config, input_scale=input_scale)
    return model.to(device).eval()


def find_model(evaluation: Evaluation, number: int) -> CorrFlow | None:
    """The plan's model, on device `number` modulo this machine's number of devices; InputError if
    its weights are not those that were planned."""
    if not evaluation.protocol.propagates:
        return None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 1
    device = choose_device(evaluation.device, number % count)
    attention = choose_backend(evaluation.attention, device, top_k=evaluation.protocol.top_k)
    model = make_model(
        evaluation.checkpoint,
        evaluation.encoder,
        evaluation.seed,
        evaluation.input_scale,
        device,
        attention,
    ).accelerate(evaluation.precision)
    print(model.describe_compute(), flush=True)
    if (weights := weights_digest(model)) != evaluation.weights:
        raise InputError(
            f"checkpoint {evaluation.checkpoint or evaluation.encoder}: its weights are {weights}, "
            f"not those that were planned: {evaluation.weights}"
        )
    return model


def method_name(job: EvalJob) -> str:
    """The method's name in the tables."""
    if job.protocol == "identity":
        return "identity"
    if job.encoder:
        name = job.encoder.rpartition(":")[2]
        return f"{name}, untrained" if job.checkpoint == "none" else name
    return "untrained" if job.checkpoint == "none" else Path(job.checkpoint or DEFAULT).stem


def work(
    plan: EvaluationPlan, number: int, count: int, device: int = 0, shown: bool = True
) -> None:
    """Evaluate the `number`-th of `count` parts of the sequences."""
    share = plan.share(number, count)
    if all(plan.result(sequence) for sequence in share):
        return
    with recording_failure(plan, share):
        model = find_model(plan.evaluation, device)
        frames = sum(sequence.length for sequence in share)
        name = plan.evaluation.name
        with progress_bar(total=frames, unit="frame", desc=name, disable=not shown) as bar:
            run_sequences(plan, share, model, bar.update)


def work_as_worker(job: EvalJob) -> int:
    """Evaluate one part, as one of several processes on this machine. Each takes its share of the
    cores (or OMP_NUM_THREADS, if that is less), and a device of its own if there are enough."""
    die_with_parent()
    keep_freed_memory()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    share_cores(world)
    # the parts take about equally long, so one progress bar stands for all
    work(read_plan(job.out), rank, world, rank, shown=rank == 0)
    return 0


def submit(job: EvalJob, plan: EvaluationPlan) -> Submitted:
    """Submit the evaluation to SLURM: an array with a job for each part that is not done, and a job
    that finishes the evaluation."""
    out = str(job.out.absolute())
    numbers = [
        n
        for n in range(job.jobs)
        if not all(plan.result(sequence) for sequence in plan.share(n, job.jobs))
    ]
    about = {"out": out, "count": job.jobs, "threads": job.cluster.cpus}
    tasks = [Task("launch.eval:work_in_array", {**about, "number": number}) for number in numbers]
    last = Task("launch.eval:end_array", {"out": out})
    left = plan.left()
    frames = sum(sequence.length for sequence in left)
    to_do = f"{len(left)} of {len(plan.sequences)} sequences to do, {frames} frames"
    return submit_work(job.out, tasks, last, "corrflow-eval", job.cluster, to_do)


def work_in_array(out: str, number: int, count: int, threads: int) -> None:
    """Evaluate one part, as a job of the array."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    work(read_plan(Path(out)), number, count)


def end_array(out: str) -> None:
    """Finish the evaluation, as the last job."""
    plan = read_plan(Path(out))
    print_result(plan, end(plan))


def follow(plan: EvaluationPlan, submitted: Submitted) -> str:
    """Wait for the jobs, with a progress bar over the frames of finished sequences; returns why the
    work failed, or an empty string."""
    waiting = {sequence.name: sequence for sequence in plan.sequences}
    with progress_bar(total=plan.frames, unit="frame", desc=plan.evaluation.name) as bar:

        def look() -> None:
            for sequence in [sequence for sequence in waiting.values() if plan.result(sequence)]:
                bar.update(waiting.pop(sequence.name).length)
            bar.set_postfix_str(
                f"{len(plan.sequences) - len(waiting)}/{len(plan.sequences)} sequences",
                refresh=False,
            )

        return wait_for(submitted.last, look)


def end(plan: EvaluationPlan) -> Result:
    """Put the parts together, and write the HTML report."""
    result = finish(plan)
    write_report(
        plan.out / "report.html", f"{plan.evaluation.benchmark}: {plan.evaluation.name}", [result]
    )
    return result


def print_result(plan: EvaluationPlan, result: Result) -> None:
    """Print the scores, and where the report is."""
    print(text_table([result]))
    if len(kinds := sorted({done.computed for done in results(plan)})) > 1:
        print(
            "sequences were computed in different ways, so figures may differ from a single job's "
            f"by rounding: {'; '.join(kinds)}"
        )
    print(f"report: {result.out / 'report.html'}")


if __name__ == "__main__":
    sys.exit(run(main))
