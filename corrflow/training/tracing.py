"""A few steps under torch's profiler, as a Chrome trace (chrome://tracing, ui.perfetto.dev): what
runs when, and for how long."""

import errno
import os
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

FOLDER = "profile"
WARM_STEPS = (
    3  # before those that are traced: the first ones compile, choose algorithms and fill caches
)


class Tracer:
    """Traces `steps` steps of a run, once."""

    def __init__(self, run: Path, steps: int, step: int, device: torch.device) -> None:
        """`step` steps are done."""
        self.run, self.first, self.last = run, step + WARM_STEPS, step + WARM_STEPS + steps
        self.activities = [
            ProfilerActivity.CPU,
            *([ProfilerActivity.CUDA] if device.type == "cuda" else []),
        ]
        self.profiler: profile | None = None

    def after(self, step: int) -> Path | None:
        """A step was done: begin or end with it; returns the trace once it is written."""
        if step == self.first < self.last:
            self.profiler = profile(activities=self.activities)
            self.profiler.start()
        return self.write(step) if step == self.last and self.profiler else None

    def write(self, step: int) -> Path:
        """End, and write what there is; the file appears whole."""
        assert self.profiler
        profiler, self.profiler = self.profiler, None
        profiler.stop()
        path = self.run / FOLDER / f"rank0-step{self.first + 1:08d}-{step:08d}.json"
        path.parent.mkdir(exist_ok=True)
        # the profiler writes by name, and packs what ends in .gz
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.json")
        try:
            profiler.export_chrome_trace(str(temporary))
            with temporary.open("rb") as file:  # the profiler does not say when a disk is full
                file.seek(-2, os.SEEK_END)
                if not file.read().rstrip().endswith(b"}"):
                    raise OSError(errno.ENOSPC, "the trace was cut short", str(path))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def close(self, step: int) -> Path | None:
        """The run ends: write what there is."""
        if self.profiler and step == self.first:
            self.profiler.stop()
        return self.write(step) if self.profiler and step > self.first else None
