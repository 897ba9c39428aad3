"""Track marked objects or points through a video:
`python launch/track.py --video my.mp4 --mask first.png --out tracked.mp4`; `--browser` opens a page
for it; `--video DIR --labels DIR --out DIR` tracks all videos of a folder."""

import sys

from corrflow import InputError
from corrflow.model import CorrFlow
from launch.common.command import parse, run
from launch.configs.evaluate import TrackJob
from launch.tracking.prompts import Prompts
from launch.tracking.request import Progress, StoppedError, TrackRequest
from launch.tracking.terminal import INTERRUPTED, bar, interruptible
from launch.tracking.track_folder import is_folder_of_videos, prepare_model, track_folder
from launch.tracking.track_video import track_video
from shards.video.sources import as_text

DAMAGED = 1  # exit code if a video was tracked only up to a damaged place


def main(argv: list[str]) -> int:
    """Track, or open the page on which to choose and mark a video."""
    job = parse(TrackJob, argv, "track.py")
    if job.browser:
        return serve_page(job)
    if job.video is None:
        raise InputError("track: no video: expected --video VIDEO, or --browser")
    prompts = Prompts(
        mask=job.mask,
        points=job.points,
        box=job.box,
        labels=job.labels,
        start=job.start,
        gone=job.gone,
        names=job.names,
    )
    if is_folder_of_videos(job.video):
        return track_folder(job, argv, __file__)
    if job.jobs:
        raise InputError(f"track: jobs {job.jobs}: video {job.video} is one: expected a folder")
    request = TrackRequest.of(job, job.video, prompts, job.out_path)
    return track(request, prepare_model(job))


def track(request: TrackRequest, model: CorrFlow) -> int:
    """Track with a progress bar. Ctrl-C keeps the frames that are done, or the earlier result if it
    has more."""
    with interruptible() as asked:
        try:
            outcome = track_video(request, model, Progress(bar, asked))
        except StoppedError:
            print("track.py: interrupted; all files are as they were", file=sys.stderr)
            return INTERRUPTED
    if outcome.note:
        print(f"track.py: {outcome.note}", file=sys.stderr)
    files = ", ".join(map(as_text, outcome.files))
    if outcome.whole:
        kept = f", {outcome.kept} of them unchanged" if outcome.kept else ""
        print(f"tracked {outcome.frames} frames{kept}: {files}")
        if outcome.review:
            print(outcome.review_line())
        return 0
    kept = f"the first {outcome.frames} frames are kept: {files}"
    if outcome.damage:
        print(
            f"track.py: video {request.video} can't be read further: {outcome.damage}; {kept}",
            file=sys.stderr,
        )
        return DAMAGED
    print(f"track.py: interrupted; {kept}", file=sys.stderr)
    return INTERRUPTED


def serve_page(job: TrackJob) -> int:
    """Serve the page until Ctrl-C."""
    try:
        from launch.tracking.page import serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("launch"):
            raise
        raise InputError(
            f"track: browser: the page needs {error.name}: pip install 'gradio>=6.31'"
        ) from None
    return serve(prepare_model(job), job)


if __name__ == "__main__":
    sys.exit(run(main))
