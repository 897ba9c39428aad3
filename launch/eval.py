"""Evaluate a checkpoint on a benchmark: `python launch/eval.py --benchmark davis2016 --root ROOT --checkpoint PT --out OUT`."""

import sys
from pathlib import Path

import torch

from corrflow.attention import choose_backend
from corrflow.benchmarks.davis import read_sequences
from corrflow.benchmarks.evaluation import Result, evaluate
from corrflow.memory import keep_freed_memory
from corrflow.model import CorrFlow, load_model
from corrflow.propagation import find_protocol
from corrflow.report import text_table, write_report
from corrflow.training.distributed import choose_device
from launch.command import parse, run
from launch.config import EvalJob


def main(argv: list[str]) -> int:
    """Evaluate, report, print the figures."""
    job = parse(EvalJob, argv, "eval.py")
    keep_freed_memory()
    result = evaluate_job(job)
    print(text_table([result]))
    print(f"report: {result.out / 'report.html'}")
    return 0


def evaluate_job(job: EvalJob) -> Result:
    """Evaluate one method and write its page."""
    protocol = find_protocol(job.protocol)
    year = int(job.benchmark.removeprefix("davis"))
    model = find_model(job) if protocol.propagates else None
    name = method_name(job)
    result = evaluate(read_sequences(job.root, year), year, model, protocol, job.out, name)
    write_report(job.out / "report.html", f"{job.benchmark}: {name}", [result])
    return result


def find_model(job: EvalJob) -> CorrFlow:
    """The checkpoint's model, or one of random weights."""
    device = choose_device(job.device)
    attention = choose_backend(job.attention, device)
    print(f"{device.type}, {attention} attention", flush=True)
    if job.checkpoint != "none":
        return load_model(job.checkpoint, device, attention)
    torch.manual_seed(job.seed)
    return CorrFlow(attention=attention).to(device).eval()


def method_name(job: EvalJob) -> str:
    """What the tables call it."""
    if job.protocol == "identity":
        return "identity"
    return "untrained" if job.checkpoint == "none" else Path(job.checkpoint).stem


if __name__ == "__main__":
    sys.exit(run(main))
