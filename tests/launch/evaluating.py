"""Runs an evaluation in this process, without the command's output."""

from corrflow.benchmarks.results import Result
from launch.common.run_config import evaluation_lock
from launch.configs.evaluate import EvalJob
from launch.eval import begin, end, plan_job, work


def evaluate_job(job: EvalJob) -> Result:
    """Evaluate one method, and write its report."""
    plan = plan_job(job, away=False)
    with evaluation_lock(job.out):
        begin(plan)
        work(plan, 0, 1)
        return end(plan)
