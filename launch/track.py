"""Track what is marked through a video:
`python launch/track.py --video my.mp4 --mask first.png --out tracked.mp4`; with `--browser`, on a
page."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from tqdm import tqdm

from corrflow import InputError, load_model
from corrflow.attention import choose_backend
from corrflow.device import choose_device
from corrflow.memory import keep_freed_memory
from corrflow.model import CorrFlow
from corrflow.propagation import find_protocol
from launch.common.command import parse, run
from launch.configs.evaluate import TrackJob
from launch.tracking.prompts import Prompts
from launch.tracking.track_video import Progress, StoppedError, TrackRequest, track_video

Item = TypeVar("Item")
# frames a second also where a frame takes more than one
BAR = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, "
    "{rate_noinv_fmt}]"
)
DAMAGED = 1  # exit code of a video that was tracked up to where it is damaged
INTERRUPTED = 130  # as shells have it: 128 + SIGINT


def main(argv: list[str]) -> int:
    """Track, or open the page on which to say what."""
    job = parse(TrackJob, argv, "track.py")
    find_protocol(job.protocol)
    if job.browser:
        return serve_page(job)
    if job.video is None or job.out is None:
        raise InputError(f"track: video {job.video}, out {job.out}: expected both, or --browser")
    marked = Prompts(job.mask, job.points, job.box, job.labels, job.start)
    how = (job.backward, job.size, job.protocol, job.write, job.tolerance, job.review)
    order = TrackRequest(job.video, marked, job.out, *how)
    return track(order, prepare_model(job))


def prepare_model(job: TrackJob) -> CorrFlow:
    """The model, where it will compute."""
    keep_freed_memory()
    device = choose_device(job.device)
    attention = choose_backend(job.attention, device)
    model = load_model(job.checkpoint, device, attention).accelerate()
    print(f"{device.type}, {attention} attention", flush=True)
    return model


def track(order: TrackRequest, model: CorrFlow) -> int:
    """Track with a bar on the terminal; Ctrl-C keeps what is done."""
    with patience() as asked:
        try:
            outcome = track_video(order, model, Progress(bar, asked))
        except StoppedError:
            print("track.py: interrupted before the first frame was written", file=sys.stderr)
            return INTERRUPTED
    files = ", ".join(map(str, outcome.files))
    if outcome.whole:
        print(f"tracked {outcome.frames} frames: {files}")
        if outcome.review:
            print(outcome.review_line())
        return 0
    kept = f"the first {outcome.frames} frames are kept: {files}"
    if outcome.damage:
        print(
            f"track.py: video {order.video} can't be read further: {outcome.damage}; {kept}",
            file=sys.stderr,
        )
        return DAMAGED
    print(f"track.py: interrupted; {kept}", file=sys.stderr)
    return INTERRUPTED


def bar(things: Iterable[Item], total: int, what: str) -> Iterable[Item]:
    """A progress bar with frames a second."""
    return tqdm(things, total=total, unit=" frames", desc=what, bar_format=BAR)


@contextmanager
def patience() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C only asks for the end, the second one is it. Gives what tells whether it was
    asked for."""
    asked = False

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print(
            "\ntrack.py: stopping after this frame; Ctrl-C again ends at once",
            file=sys.stderr,
            flush=True,
        )

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def serve_page(job: TrackJob) -> int:
    """Open the page, and stay until Ctrl-C."""
    try:
        from launch.tracking.page import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("launch"):
            raise
        raise InputError(
            f"track: browser: the page needs {error.name}: pip install 'gradio>=6.31'"
        ) from None
    return serve(prepare_model(job), job.size, job.protocol, job.port)


if __name__ == "__main__":
    sys.exit(run(main))
