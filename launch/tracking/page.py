"""A page to choose a video, mark what to track, and see the result:
`python launch/track.py --browser`.

It is for this machine only: nothing is shared, and nothing is fetched from other hosts. Clicks and
painting are handled in `marking.py`.
"""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from corrflow import CorrFlow, InputError
from corrflow.annotations import WRITERS
from corrflow.pictures import Pixels, read_mask, write_mask
from corrflow.tracking.recording import masks_folder
from launch.common.command import MISTAKES
from launch.configs.evaluate import TrackJob
from launch.tracking.marking import ShownFrame, canvas_of, marking_canvas, paint, read_marks
from launch.tracking.prompts import Prompts
from launch.tracking.request import Progress, StoppedError, TrackRequest
from launch.tracking.track_folder import LABEL_SUFFIXES
from launch.tracking.track_video import track_video
from shards.video.sources import VIDEO_SUFFIXES
from shards.video.video_reader import (
    BrokenVideoError,
    FrameNames,
    open_video_reader,
    picture_at,
)

Item = TypeVar("Item")
# system fonts, so that none are fetched
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
    """The model and the settings with which the page tracks all videos."""

    model: CorrFlow
    size: int
    protocol: str
    adapt: int
    folder: Path
    """For results; deleted when the page is closed."""


class OpenedVideo:
    """A video that a user chose, and its one result, which later marks correct."""

    def __init__(self, video: str, folder: Path) -> None:
        self.video, self.stop = Path(video), threading.Event()
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.out = self.folder / f"{self.video.stem}-tracked.mp4"
        self.below: dict[int, Pixels | None] = {}
        """The tracked objects of each frame at the time when strokes were first painted over it.
        Later trackings apply the strokes to these, so that the same strokes mean the same."""

    def read_marks(self, value: str) -> Prompts:
        """Convert the marks on the page to prompts."""
        before, self.below = self.below, {}

        def below_at(number: int) -> Pixels | None:
            is_known = number in before
            self.below[number] = before[number] if is_known else self.tracked_at(number)
            return self.below[number]

        return read_marks(value, Path(tempfile.mkdtemp(dir=self.folder)), below_at)

    def paint_masks(self, value: str) -> None:
        """Paint strokes into the masks that were tracked from labels, as corrections: edited masks
        take precedence over the labels. If all strokes in a frame were undone, its mask is deleted,
        so that the frame is tracked again."""
        strokes = json.loads(value or "{}").get("mask", [])
        frames = {stroke["frame"] for stroke in strokes}
        before, self.below = self.below, {}
        for number in before.keys() - frames:
            self.mask_path(number).unlink(missing_ok=True)
        for number in frames:
            tracked_hw = before.get(number)
            if tracked_hw is None:
                tracked_hw = self.tracked_at(number)
            if tracked_hw is not None:
                self.below[number] = tracked_hw
                here = [stroke for stroke in strokes if stroke["frame"] == number]
                write_mask(self.mask_path(number), paint(here, tracked_hw))

    def tracked_at(self, number: int) -> Pixels | None:
        """The tracked objects of a frame, `[H, W]`; None if it was not tracked."""
        path = self.mask_path(number)
        return read_mask(path) if path.exists() else None

    def mask_path(self, number: int) -> Path:
        """The path of a frame's mask, which exists if the video was tracked."""
        return masks_folder(self.out) / f"{FrameNames().name(number)}.png"

    def confidence(self) -> list[float]:
        """The lowest confidence of an object or point in each frame; empty if nothing was
        tracked."""
        table = self.out.with_suffix(".json")
        if not table.exists():
            return []
        frames = json.loads(table.read_text(encoding="utf-8"))["frames"]
        rows = [frame.get("objects") or frame.get("points") or [] for frame in frames]
        return [min((float(row["confidence"]) for row in r), default=0.0) for r in rows]

    def show(self, number: int) -> gr.HTML:
        """Show a frame to be marked, with the objects that were tracked in it."""
        pixels, tracked_hw = picture_at(self.video, number), self.tracked_at(number)
        return canvas_of(str(self.video), ShownFrame(number, pixels, tracked_hw, self.confidence()))


def serve(model: CorrFlow, job: TrackJob) -> int:
    """Serve the page until Ctrl-C."""
    with tempfile.TemporaryDirectory(prefix="corrflow-page-") as folder:
        page = build(Setting(model, job.size, job.protocol, job.adapt, Path(folder)))
        try:
            page.launch(**LOCAL, server_port=job.port, theme=THEME)
        except OSError:
            raise InputError(
                f"track: port {job.port}: is taken: expected a free one, by --port"
            ) from None
        print(f"http://127.0.0.1:{job.port} - Ctrl-C ends it", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("page closed")
        finally:
            page.close(verbose=False)
    return 0


def build(setting: Setting) -> gr.Blocks:
    """Build the page."""
    page = gr.Blocks(title="corrflow: track", analytics_enabled=False)
    with page:
        gr.Markdown(
            "# Track\nChoose a video, mark what to follow on a frame of it, and start. Then go to "
            "the frames of least confidence, correct what is wrong there, and track again: only "
            "the frames that the corrections affect are tracked again."
        )
        opened = gr.State(None)
        with gr.Row():
            with gr.Column(scale=3):
                video = gr.File(label="Video", file_types=sorted(VIDEO_SUFFIXES), elem_id="video")
                with gr.Column(visible=False) as marking:
                    marks = marking_canvas()
                    frame = gr.Slider(0, 1, value=0, step=1, label="Frame", elem_id="frame")
                    backward = gr.Checkbox(
                        label="Also track backward, from the marked frame to the first one",
                        elem_id="backward",
                    )
                    names = gr.Textbox(
                        label="Names of the objects or points, with commas between them",
                        placeholder="1, 2, ...",
                        elem_id="names",
                    )
                    labels, formats = tool_fields()
                    with gr.Row():
                        start = gr.Button("Track", variant="primary", elem_id="start")
                        halt = gr.Button("Stop", elem_id="stop")
            with gr.Column(scale=2):
                result, message, files = result_fields()
        video.upload(
            open_with(setting),
            video,
            [marking, marks, frame, opened, message],
            show_progress="minimal",
        )
        video.clear(lambda: gr.Column(visible=False), None, marking)
        frame.release(show_frame, [opened, frame], marks, show_progress="hidden")
        marks.select(chosen_frame, None, frame, show_progress="hidden").then(
            show_frame, [opened, frame], marks, show_progress="hidden"
        )
        start.click(
            track_with(setting),
            [opened, marks, names, backward, labels, formats],
            [result, files, message],
            show_progress_on=result,
        ).then(show_frame, [opened, frame], marks, show_progress="hidden")
        halt.click(
            lambda video: video.stop.set() if video else None,
            opened,
            None,
            show_progress="hidden",
            queue=False,
        )
    return page


def tool_fields() -> tuple[gr.File, gr.CheckboxGroup]:
    """Fields for labels of another tool, and for formats to write."""
    with gr.Accordion("Labels of another tool", open=False, elem_id="tools"):
        labels = gr.File(
            label="Labels to track, instead of marks: CVAT, COCO, Labelme, YOLO, PNG",
            file_types=list(LABEL_SUFFIXES),
            height=120,
            elem_id="labels",
        )
        formats = gr.CheckboxGroup(list(WRITERS), label="Formats to write", elem_id="formats")
    return labels, formats


def result_fields() -> tuple[gr.Video, gr.Markdown, gr.File]:
    """Fields for the resulting video, a message, and the files."""
    result = gr.Video(label="Result", interactive=False, elem_id="result")
    message = gr.Markdown(elem_id="message")
    files = gr.File(
        label="Files", interactive=False, file_count="multiple", visible=False, elem_id="files"
    )
    return result, message, files


def open_with(setting: Setting) -> Any:
    """The handler of choosing a video."""

    def open_video(path: str) -> tuple[Any, ...]:
        with mistakes_shown(), open_video_reader(Path(path)) as reader:
            opened, count = OpenedVideo(path, setting.folder), reader.count
            facts = f"{count} frames, {reader.width}x{reader.height}"
            canvas = opened.show(0)
        slider = gr.Slider(0, max(count - 1, 1), value=0, interactive=count > 1)
        return gr.Column(visible=True), canvas, slider, opened, facts

    return open_video


def show_frame(opened: OpenedVideo, number: int) -> gr.HTML:
    """Show another frame of the video."""
    with mistakes_shown():
        return opened.show(number)


def chosen_frame(event: gr.SelectData) -> int:
    """The frame that was chosen by a key on the canvas or a click on the timeline."""
    return int(event.value)


@contextmanager
def mistakes_shown() -> Iterator[None]:
    """Show a user's mistake as a message on the page."""
    try:
        yield
    except (BrokenVideoError, *MISTAKES) as error:
        raise gr.Error(str(error)) from None


def track_with(setting: Setting) -> Any:
    """The handler of the button Track."""

    def track(
        opened: OpenedVideo,
        marks: str,
        names: str,
        backward: bool,
        labels: str | None,
        formats: list[str],
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Any:
        opened.stop.clear()
        try:
            with mistakes_shown():
                if labels:
                    opened.paint_masks(marks)
                    prompts = Prompts(labels=Path(labels))
                else:
                    prompts = replace(opened.read_marks(marks), names=split_names(names))
                request = TrackRequest(
                    video=opened.video,
                    prompts=prompts,
                    out=opened.out,
                    backward=backward,
                    size=setting.size,
                    protocol=setting.protocol,
                    write=tuple(formats),
                    adapt=setting.adapt,
                )
                watch = Progress(shown(progress), opened.stop.is_set)
                outcome = track_video(request, setting.model, watch)
        except StoppedError:
            return None, gr.File(visible=False), "Stopped: nothing was written."
        end = "" if outcome.whole else ", then stopped"
        if outcome.damage:
            end = f"; the video can't be read further: {outcome.damage}"
        files = gr.File([packed(path) for path in outcome.files], visible=True)
        note = f" {outcome.note}." if outcome.note else ""
        review = f" {outcome.review_line().capitalize()}." if outcome.review else ""
        kept = f", {outcome.kept} of them unchanged" if outcome.kept else ""
        return str(request.out), files, f"Tracked {outcome.frames} frames{kept}{end}.{note}{review}"

    return track


def split_names(value: str) -> tuple[str, ...]:
    """The names in the field, separated by commas; empty if the field is."""
    return tuple(name.strip() for name in value.split(",")) if value.strip() else ()


def shown(progress: gr.Progress) -> Any:
    """A function that passes items through and shows their progress on the page."""

    def show(things: Iterable[Item], total: int, what: str, unit: str) -> Iterator[Item]:
        began = time.monotonic()
        for count, thing in enumerate(things, 1):
            yield thing
            rate = count / max(time.monotonic() - began, 1e-6)
            progress((min(count, total), total), desc=f"{what}, {rate:.1f} {unit}/s", unit=unit)

    return show


def packed(path: Path) -> str:
    """The path of a file to download; a folder is packed into a zip file."""
    return str(path) if path.is_file() else shutil.make_archive(str(path), "zip", path)
