"""Compare finished evaluations in a printed table and an HTML page:
`python launch/report.py RUN1 RUN2 ... [--out report.html]`."""

import sys
from pathlib import Path

from corrflow import InputError
from corrflow.benchmarks.results import Result, read_result
from corrflow.report import average_seeds, text_table, write_report
from launch.common.command import parse, run
from launch.configs.evaluate import ReportJob


def main(argv: list[str]) -> int:
    """Read the evaluations, print their scores, and write the page."""
    job = parse(ReportJob, argv, "report.py")
    results = average_seeds([read_run(folder) for folder in job.runs], job.seeds)
    write_page(job, results)
    print(text_table(results))
    print(f"report: {job.out}")
    return 0


def write_page(job: ReportJob, results: list[Result]) -> None:
    """Write the page; InputError if it can't be written."""
    if job.out.is_dir():
        raise InputError(
            f"{job.out}: is a folder: expected a file to write, such as {job.out / 'report.html'}"
        )
    if job.out.parent.exists() and not job.out.parent.is_dir():
        raise InputError(f"{job.out}: {job.out.parent} is a file: expected a folder")
    try:
        write_report(job.out, job.title, results)
    except OSError as error:
        raise InputError(f"{job.out}: can't be written to ({error.strerror})") from None


def read_run(folder: Path) -> Result:
    """Read a finished evaluation; InputError if the folder has none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder: expected one of launch/eval.py --out")
    return read_result(folder)


if __name__ == "__main__":
    sys.exit(run(main))
