"""Checks and measures everything that runs on a GPU, in a few minutes: is it right, how fast is it,
and what limits it. Each part yields its result lines as soon as it has them, and a line for each
failure."""

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from corrflow.attention import BACKENDS, choose_backend, restricted_attention
from corrflow.attention.backends import LARGEST_TOP_K
from corrflow.augmentation import step_draws
from corrflow.benchmarks.results import read_result
from corrflow.errors import InputError
from corrflow.inputs import InputPipeline
from corrflow.loss import CorrespondenceLoss, LossConfig
from corrflow.model import ModelConfig, seeded_model
from corrflow.speed import cases, step_cases
from corrflow.speed.measure import Variant, measure
from corrflow.speed.sizes import Sizes, clips_of
from corrflow.training.compute import ComputeConfig
from launch.configs.bench import GpuBenchJob, GpuPart, TrainBenchJob, bench_sizes
from launch.configs.recipes import find_recipe
from launch.measuring.training import measure_training

TOP_K = 10
# largest relative error of an output or a gradient: float32 is computed by three tf32 products;
# half precision rounds the attention weights and the gradients of the logits
TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
# largest relative error of features and losses on CUDA against the CPU, as convolutions on CUDA
# round to tf32
MODEL_TOLERANCE = 1e-2
PROFILED_STEPS = 3
SLOWEST = 12  # how many of a step's slowest operations are listed
WORKS = ("attention", "step", "inference")


@dataclass(frozen=True)
class Line:
    """One thing that was checked or measured."""

    part: str
    name: str
    figures: dict[str, float]
    failure: str = ""
    """What failed; empty if nothing did."""
    note: str = ""
    """Why something was skipped."""

    def __str__(self) -> str:
        words = [f"{name} {value:.4g}" for name, value in self.figures.items()]
        words += [self.note] if self.note else []
        words += [f"FAILED: {self.failure}"] if self.failure else []
        return f"{self.part:10} {self.name:44} {'  '.join(words)}"


def run_parts(
    job: GpuBenchJob, device: torch.device, on_line: Callable[[Line], object]
) -> list[Line]:
    """Run the parts that were asked for. A part that fails adds a line, and the others go on."""
    lines: list[Line] = []

    def add(line: Line) -> None:
        lines.append(line)
        on_line(line)

    for name in job.parts:
        begun = time.perf_counter()
        try:
            for line in PARTS[name](job, device):
                add(line)
        # any exception: time on a GPU is scarce, so the other parts should still run
        except Exception as error:
            add(Line(name, "", {}, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"))
        add(Line(name, "in all", {"s": time.perf_counter() - begun}))
    return lines


def check_attention(job: GpuBenchJob, device: torch.device) -> Iterator[Line]:
    """Compare each backend in each precision, over all cells and over only the most similar ones,
    with the reference implementation in float64."""
    side, radius = (12, 2) if job.tiny else (40, 6)
    for backend in BACKENDS[1:]:
        try:
            choose_backend(backend, device)
        except InputError as error:
            yield Line("attention", backend, {}, note=f"left out: {error}")
            continue
        for dtype, top_k in itertools.product(TOLERANCES, (0, TOP_K, LARGEST_TOP_K)):
            name = f"{backend}, {str(dtype).removeprefix('torch.')}, top-k {top_k}"
            errors = attention_errors(backend, dtype, side, radius, top_k, device)
            worst = max(errors.values())
            wrong = f"expected at most {TOLERANCES[dtype]:g}" if worst > TOLERANCES[dtype] else ""
            yield Line("attention", name, errors, wrong)


def attention_errors(
    backend: str, dtype: torch.dtype, side: int, radius: int, top_k: int, device: torch.device
) -> dict[str, float]:
    """Relative errors of the output and of each gradient, with three reference frames of 32
    channels."""
    draw = torch.Generator().manual_seed(0)
    shapes = (2, 32, side, side), (2, 3, 32, side, side), (2, 3, 5, side, side)
    # rounded to dtype first, so that both see the same values
    inputs = [torch.randn(shape, generator=draw).to(dtype).to(device) for shape in shapes]
    weights = torch.randn(2, 5, side, side, generator=draw).to(device)

    def compute(name: str, *, wide: bool) -> list[Tensor]:
        query, key, value = ((x.double() if wide else x.clone()).requires_grad_() for x in inputs)
        out = restricted_attention(query, key, value, radius, 0.3, top_k, name)
        total = (out * weights.to(out.dtype)).sum()
        gradients = torch.autograd.grad(total, (query, key, value))
        return [out.detach().double(), *(x.double() for x in gradients)]

    exact, fast = compute("reference", wide=True), compute(backend, wide=False)
    names = ("output", "query", "key", "value")
    return {name: relative(f, e) for name, f, e in zip(names, fast, exact, strict=True)}


def relative(ours: Tensor, exact: Tensor) -> float:
    """The norm of the difference divided by the norm of the exact tensor."""
    return float((ours - exact).norm() / exact.norm())


def check_model(job: GpuBenchJob, device: torch.device) -> Iterator[Line]:
    """Compare colour classes, features, losses and gradients with the CPU's."""
    sizes = Sizes(1, 32, 32) if job.tiny else Sizes(2, 96, 96)
    clips = clips_of(sizes)
    ours, exact = (model_figures(clips, place) for place in (device, torch.device("cpu")))
    classes = float((ours["classes"] != exact["classes"]).float().mean())
    wrong = "expected the same classes of colours" if classes else ""
    yield Line("model", "colours, share that differs", {"classes": classes}, wrong)
    for name in ("features", "loss", "gradient"):
        error = relative(ours[name], exact[name])
        wrong = f"expected at most {MODEL_TOLERANCE:g}" if error > MODEL_TOLERANCE else ""
        yield Line("model", f"{name}, relative error", {"error": error}, wrong)


def model_figures(clips: Tensor, device: torch.device) -> dict[str, Tensor]:
    """The results of one float32 training step on `device`, copied to the CPU."""
    model = seeded_model(ModelConfig(), 0, "auto").to(device).train()
    pipeline = InputPipeline.of(model)
    data = pipeline.prepare(clips, step_draws(0, 0), device)
    loss = CorrespondenceLoss(model, LossConfig(), pipeline.targets)
    total, terms = loss(data.inputs_bt3hw, data.colors_btkhw, data.classes_btmhw, (True,))
    total.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    with torch.inference_mode():
        features = model.eval().encode(data.inputs_bt3hw[:, 0])
    figures = {
        "classes": data.classes_btmhw,
        "features": features,
        "loss": torch.stack([total, *terms.values()]).detach(),
        "gradient": gradient,
    }
    return {name: figure.cpu() for name, figure in figures.items()}


def measure_speed(job: GpuBenchJob, device: torch.device) -> Iterator[Line]:
    """Measure attention, training step and tracking, each compared with the released
    formulation."""
    for work in WORKS:
        batch, height, width, rounds = bench_sizes(device)[work]
        sizes = Sizes(1, 32, 32, 2) if job.tiny else Sizes(batch, height, width)
        variants = cases.variants_of(work, sizes, device)
        if work == "step":
            variants += launch_variants(sizes, device)
        measured = measure(variants, device, 1 if job.tiny else min(rounds, 5))
        for row in measured.rows:
            figures = {"ms": 1000 * row.seconds, "per_s": row.need.items / row.seconds}
            if row.speedup is not None:
                figures["speedup"] = row.speedup
            if row.peak_mib is not None:
                figures["mib"] = row.peak_mib
            yield Line("speed", f"{row.name}, {row.variant}", figures)
        for failure in measured.failures:
            yield Line("speed", work, {}, failure)


def launch_variants(sizes: Sizes, device: torch.device) -> list[Variant]:
    """Training steps with ways to launch kernels that training itself does not use: CUDA graphs."""
    if device.type != "cuda":
        return []
    need = step_cases.step_variants(sizes, device)[0].need
    ways = {
        "graph": step_cases.build_graph_step,
        "compiled, graphs": step_cases.build_compiled_graph_step,
    }
    return [
        Variant("step", name, partial(build, sizes, "cuda"), need) for name, build in ways.items()
    ]


def check_training(job: GpuBenchJob, device: torch.device) -> Iterator[Line]:
    """Measure training with the default recipe on the user's shards, end to end."""
    if not job.data:
        yield Line("training", "", {}, note="left out: no --data")
        return
    recipe = find_recipe("smoke" if job.tiny else "gpu")
    ways = {"default": ComputeConfig()}
    if device.type == "cuda":
        ways["compiled"] = ComputeConfig(compile="yes")
    for name, compute in ways.items():
        training = replace(recipe.training, compute=compute)
        steps = 3 if job.tiny else 40
        bench = TrainBenchJob(
            job.data, steps, clip=recipe.clip, stream=recipe.stream, training=training
        )
        speed = measure_training(bench, device)
        clips = {
            "step": speed.clips / speed.step,
            "loader": speed.clips / speed.loader,
            "training": speed.clips / speed.training,
        }
        figures = {f"{part}_clips_per_s": rate for part, rate in clips.items()}
        figures |= {"waited": speed.waited, "reached": speed.reached}
        yield Line("training", name, figures)


def check_davis(job: GpuBenchJob, device: torch.device) -> Iterator[Line]:
    """Evaluate DAVIS-2016 with both protocols: accuracy and speed."""
    if not job.davis:
        yield Line("davis", "", {}, note="left out: no --davis")
        return
    for protocol in ("paper", "memory"):
        out = job.out / f"davis-{protocol}"
        # in its own process, so that its peak memory is separate
        command = [sys.executable, str(Path(__file__).parents[1] / "eval.py")]
        command += ["--benchmark", "davis2016", "--root", str(job.davis), "--out", str(out)]
        command += ["--protocol", protocol, "--device", device.type]
        command += ["--size", "32"] if job.tiny else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            yield Line("davis", protocol, {}, done.stderr.strip().splitlines()[-1])
            continue
        result = read_result(out)
        figures = {
            "J&F": result.overall["J&F-Mean"],
            "s": result.seconds,
            "frames_per_s": result.frames / result.seconds,
        }
        yield Line("davis", protocol, figures)


def profile_step(job: GpuBenchJob, device: torch.device) -> Iterator[Line]:
    """List the operations of a training step that take the most time, and write the profiler's
    trace."""
    batch, height, width, _ = bench_sizes(device)["step"]
    sizes = Sizes(1, 32, 32, 2) if job.tiny else Sizes(batch, height, width)
    step = step_cases.build_step(ComputeConfig(), sizes, str(device))
    step()
    cuda = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if cuda else [ProfilerActivity.CPU]
    with profile(activities=kinds) as profiler:
        for _ in range(PROFILED_STEPS):
            step()
    profiler.export_chrome_trace(str(job.out / "step.trace.json.gz"))
    events = profiler.key_averages()
    # on the CPU nothing is launched, so operations are counted instead, nested ones included
    names = ("cudaLaunchKernel", "cuLaunchKernel") if cuda else ("aten::",)
    launches = sum(event.count for event in events if event.key.startswith(names))
    yield Line("profile", "launches of a step", {"count": launches / PROFILED_STEPS})
    attribute = "self_device_time_total" if cuda else "self_cpu_time_total"
    times = {event.key: float(getattr(event, attribute)) for event in events}
    total = sum(times.values()) or 1.0
    for name, time_us in sorted(times.items(), key=lambda pair: -pair[1])[:SLOWEST]:
        figures = {"ms": time_us / 1000 / PROFILED_STEPS, "share": time_us / total}
        yield Line("profile", name[:44], figures)


PARTS: dict[GpuPart, Callable[[GpuBenchJob, torch.device], Iterator[Line]]] = {
    "attention": check_attention,
    "model": check_model,
    "speed": measure_speed,
    "training": check_training,
    "davis": check_davis,
    "profile": profile_step,
}
