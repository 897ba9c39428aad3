"""Profiles a few steps with torch's profiler and writes a Chrome trace (for chrome://tracing or
ui.perfetto.dev)."""

import errno
import os
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

FOLDER = "profile"
WARM_STEPS = 3  # before the traced ones: the first steps compile, choose algorithms and fill caches


class Tracer:
    """Traces `steps` steps of a run, once."""

    def __init__(self, run: Path, steps: int, step: int, device: torch.device) -> None:
        """Plan a trace of `steps` steps, for a run that has done `step` steps."""
        self.run, self.first, self.last = run, step + WARM_STEPS, step + WARM_STEPS + steps
        self.activities = [
            ProfilerActivity.CPU,
            *([ProfilerActivity.CUDA] if device.type == "cuda" else []),
        ]
        self.profiler: profile | None = None

    def after(self, step: int) -> Path | None:
        """Call after each step: starts or ends the trace; returns its path once it is written."""
        if step == self.first < self.last:
            self.profiler = profile(activities=self.activities)
            self.profiler.start()
        return self.write(step) if step == self.last and self.profiler else None

    def write(self, step: int) -> Path:
        """Stop profiling and write the trace atomically."""
        assert self.profiler
        profiler, self.profiler = self.profiler, None
        profiler.stop()
        path = self.run / FOLDER / f"rank0-step{self.first + 1:08d}-{step:08d}.json"
        path.parent.mkdir(exist_ok=True)
        # the profiler takes a file name, and compresses if it ends in .gz
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.json")
        try:
            profiler.export_chrome_trace(str(temporary))
            with temporary.open("rb") as file:  # the profiler ignores a full disk
                file.seek(-2, os.SEEK_END)
                if not file.read().rstrip().endswith(b"}"):
                    raise OSError(errno.ENOSPC, "the trace was cut short", str(path))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def close(self, step: int) -> Path | None:
        """Write the trace so far when the run ends early; returns its path, if there is one."""
        if self.profiler and step == self.first:
            self.profiler.stop()
        return self.write(step) if self.profiler and step > self.first else None
