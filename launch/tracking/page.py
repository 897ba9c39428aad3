"""A page on which to choose a video, mark what to follow, and see the result:
`python launch/track.py --browser`.

For this machine alone: nothing is shared, nothing asked of other hosts. What is clicked and painted
is in `marking.py`.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from corrflow import CorrFlow, InputError
from corrflow.annotations import WRITERS
from launch.common.command import MISTAKES
from launch.tracking.marking import canvas_of, marking_canvas, read_marks
from launch.tracking.prompts import Prompts
from launch.tracking.track_folder import LABEL_SUFFIXES
from launch.tracking.track_video import Progress, StoppedError, TrackRequest, track_video
from shards.video.sources import VIDEO_SUFFIXES
from shards.video.video_reader import BrokenVideoError, open_video_reader, picture_at

Item = TypeVar("Item")
# none that would be fetched
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
LOCAL: dict[str, Any] = {
    "server_name": "127.0.0.1",
    "share": False,
    "quiet": True,
    "prevent_thread_lock": True,
    "ssr_mode": False,
    "footer_links": [],
}


@dataclass(frozen=True)
class Setting:
    """What all videos of the page are tracked with."""

    model: CorrFlow
    size: int
    protocol: str
    folder: Path
    """For results; gone with the page."""


def serve(model: CorrFlow, size: int, protocol: str, port: int) -> int:
    """Open the page, and stay until Ctrl-C."""
    with tempfile.TemporaryDirectory(prefix="corrflow-page-") as folder:
        page = build(Setting(model, size, protocol, Path(folder)))
        try:
            page.launch(**LOCAL, server_port=port, theme=THEME)
        except OSError:
            raise InputError(
                f"track: port {port}: is taken: expected a free one, by --port"
            ) from None
        print(f"http://127.0.0.1:{port} - Ctrl-C ends it", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("page closed")
        finally:
            page.close(verbose=False)
    return 0


def build(setting: Setting) -> gr.Blocks:
    """The page."""
    page = gr.Blocks(title="corrflow: track", analytics_enabled=False)
    with page:
        gr.Markdown("# Track\nChoose a video, mark what to follow on a frame of it, and start.")
        stop = gr.State(None)
        with gr.Row():
            with gr.Column(scale=3):
                video = gr.File(label="Video", file_types=sorted(VIDEO_SUFFIXES), elem_id="video")
                with gr.Column(visible=False) as marking:
                    marks = marking_canvas()
                    frame = gr.Slider(0, 1, value=0, step=1, label="Frame", elem_id="frame")
                    backward = gr.Checkbox(
                        label="Backwards as well, from the marked frame to the first one",
                        elem_id="backward",
                    )
                    with gr.Accordion("Labels of another tool", open=False, elem_id="tools"):
                        labels = gr.File(
                            label="Labels to track, instead of marks: CVAT, COCO, Labelme, YOLO, "
                            "PNG",
                            file_types=list(LABEL_SUFFIXES),
                            height=120,
                            elem_id="labels",
                        )
                        formats = gr.CheckboxGroup(
                            list(WRITERS), label="Formats to write", elem_id="formats"
                        )
                    with gr.Row():
                        start = gr.Button("Track", variant="primary", elem_id="start")
                        halt = gr.Button("Stop", elem_id="stop")
            with gr.Column(scale=2):
                result = gr.Video(label="Result", interactive=False, elem_id="result")
                message = gr.Markdown(elem_id="told")
                files = gr.File(
                    label="Files",
                    interactive=False,
                    file_count="multiple",
                    visible=False,
                    elem_id="files",
                )
        video.upload(
            show_video, video, [marking, marks, frame, stop, message], show_progress="minimal"
        )
        video.clear(lambda: gr.Column(visible=False), None, marking)
        frame.release(show_frame, [video, frame], marks, show_progress="hidden")
        start.click(
            track_with(setting),
            [video, marks, backward, labels, formats, stop],
            [result, files, message],
            show_progress_on=result,
        )
        halt.click(
            lambda asked: asked.set() if asked else None,
            stop,
            None,
            show_progress="hidden",
            queue=False,
        )
    return page


def show_video(path: str) -> tuple[Any, ...]:
    """The first frame of a video, to be marked."""
    with mistakes_shown(), open_video_reader(Path(path)) as footage:
        pixels, count = next(footage.frames).pixels, footage.count
    slider = gr.Slider(0, max(count - 1, 1), value=0, interactive=count > 1)
    facts = f"{count} frames, {pixels.shape[1]}x{pixels.shape[0]}"
    return gr.Column(visible=True), canvas_of(path, 0, pixels), slider, threading.Event(), facts


def show_frame(path: str, number: int) -> gr.HTML:
    """Another frame of it."""
    with mistakes_shown():
        return canvas_of(path, number, picture_at(Path(path), number))


@contextmanager
def mistakes_shown() -> Iterator[None]:
    """A user's mistake becomes a line on the page."""
    try:
        yield
    except (BrokenVideoError, *MISTAKES) as error:
        raise gr.Error(str(error)) from None


def track_with(setting: Setting) -> Any:
    """What the button does."""

    def track(
        path: str,
        marks: str,
        backward: bool,
        labels: str | None,
        formats: list[str],
        stop: threading.Event,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Any:
        video, folder = Path(path), Path(tempfile.mkdtemp(dir=setting.folder))
        stop.clear()
        out = folder / f"{video.stem}-tracked.mp4"
        try:
            with mistakes_shown():
                prompts = Prompts(labels=Path(labels)) if labels else read_marks(marks, folder)
                how = (backward, setting.size, setting.protocol, tuple(formats))
                order = TrackRequest(video, prompts, out, *how)
                outcome = track_video(order, setting.model, Progress(shown(progress), stop.is_set))
        except StoppedError:
            return None, gr.File(visible=False), "Stopped before the first frame was written."
        end = "" if outcome.whole else ", then stopped"
        if outcome.damage:
            end = f"; the video can't be read further: {outcome.damage}"
        files = gr.File([packed(path) for path in outcome.files], visible=True)
        review = f" {outcome.review_line().capitalize()}." if outcome.review else ""
        return str(order.out), files, f"Tracked {outcome.frames} frames{end}.{review}"

    return track


def shown(progress: gr.Progress) -> Any:
    """Things passed through, with their progress on the page."""

    def show(things: Iterable[Item], total: int, what: str) -> Iterator[Item]:
        began = time.monotonic()
        for count, thing in enumerate(things, 1):
            yield thing
            rate = count / max(time.monotonic() - began, 1e-6)
            progress((min(count, total), total), desc=f"{what}, {rate:.1f} frames/s", unit="frames")

    return show


def packed(path: Path) -> str:
    """A file, or a folder as a zip."""
    return str(path) if path.is_file() else shutil.make_archive(str(path), "zip", path)
