"""The part of the page on which the user marks a frame: shows the canvas and reads the marks. Its
other half, `marking.js`, draws and handles events."""

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image, ImageDraw

from corrflow import InputError
from corrflow.drawing import color
from corrflow.pictures import Pixels, write_mask
from launch.tracking.prompts import Prompts

OBJECTS = 8  # colours to paint with
# pixels of the longer side of a frame as it is shown; marks are in pixels of the video itself
SHOWN = 1280
TOOLS = """
<div class="tools">
  <button type="button" data-mode="points">Points</button>
  <button type="button" data-mode="box">Boxes</button>
  <button type="button" data-mode="mask">Paint</button>
  <span class="gap"></span>
  <button type="button" data-act="undo">Undo</button>
  <button type="button" data-act="clear">Clear</button>
</div>
<div class="tools brush" hidden>
  OBJECTS
  <button type="button" data-object="0" title="Eraser">Eraser</button>
  <label>Brush <input type="range" name="size" min="4" max="120" value="24"></label>
</div>
<canvas class="frame" tabindex="0" aria-label="The frame to be marked"></canvas>
<canvas class="timeline" hidden aria-label="Confidence in each frame; a click goes there"></canvas>
<p class="hint"></p>
"""
STYLE = """
.tools { display: flex; flex-wrap: wrap; gap: .4rem; align-items: center; margin-bottom: .5rem; }
.tools[hidden] { display: none; }
.gap { flex: 1; }
button { margin: 0; padding: .35rem .8rem; border-radius: .4rem;
  border: 1px solid var(--border-color-primary);
  background: var(--button-secondary-background-fill);
  color: var(--body-text-color); cursor: pointer; }
button[aria-pressed=true] { border-color: var(--color-accent); font-weight: 600;
  box-shadow: 0 0 0 1px var(--color-accent); }
button.swatch { width: 2rem; height: 2rem; padding: 0; background: var(--paint); color: white; }
canvas.frame { display: block; width: 100%; max-height: 75vh; object-fit: contain;
  border-radius: .4rem; touch-action: none; cursor: crosshair; }
canvas.timeline { display: block; width: 100%; height: 3rem; margin-top: .5rem;
  border-radius: .4rem; cursor: pointer; }
canvas.timeline[hidden] { display: none; }
label { display: flex; gap: .4rem; align-items: center; margin: 0; }
.hint { margin: .4rem 0 0; color: var(--body-text-color); opacity: .75; }
"""


def marking_canvas() -> gr.HTML:
    """The component on which frames are marked."""
    swatches = [
        f'<button type="button" class="swatch" data-object="{n}" title="Object {n}">{n}</button>'
        for n in range(1, OBJECTS + 1)
    ]
    colors = json.dumps([f"rgb{color(number)}" for number in range(1, 256)])
    return gr.HTML(
        "",
        html_template=TOOLS.replace("OBJECTS", "\n".join(swatches)),
        css_template=STYLE,
        js_on_load=Path(__file__)
        .with_name("marking.js")
        .read_text(encoding="utf-8")
        .replace("COLORS", colors),
        elem_id="marks",
    )


@dataclass(frozen=True)
class ShownFrame:
    """A frame on the page."""

    number: int
    pixels: Pixels
    """`[H, W, 3]`"""
    tracked: Pixels | None = None
    """Objects that were tracked in it, `[H, W]`."""
    confidence: Sequence[float] = ()
    """Confidence in each frame of the video; empty if it was not tracked."""


def canvas_of(path: str, frame: ShownFrame) -> gr.HTML:
    """The properties for `marking.js`, all of them each time, since omitted ones are reset."""
    height, width, _ = frame.pixels.shape
    return gr.HTML(
        picture=picture_url(frame.pixels),
        video=path,
        frame=frame.number,
        width=width,
        height=height,
        tracked="" if frame.tracked is None else labels_url(frame.tracked),
        confidence=list(frame.confidence),
    )


def picture_url(pixels: Pixels) -> str:
    """A frame as a data URL."""
    image, out = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((SHOWN, SHOWN))
    image.save(out, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def labels_url(labels_hw: Pixels) -> str:
    """Objects in their colours on a transparent background, as a data URL."""
    colors = np.array([(0, 0, 0, 0), *((*color(n), 255) for n in range(1, 256))], np.uint8)
    out = io.BytesIO()
    Image.fromarray(colors[labels_hw]).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def read_marks(
    value: str, folder: Path, tracked_at: Callable[[int], Pixels | None] = lambda number: None
) -> Prompts:
    """Convert the marks of `marking.js` to prompts, as flags would give them.

    Args:
        value: the component's value, JSON as `marking.js` writes it.
        folder: to write masks of painted objects to.
        tracked_at: gives the tracked objects of a frame, `[H, W]`, over which strokes are painted.

    Raises:
        InputError: nothing is marked.
    """
    marks = json.loads(value or "{}")
    mode = marks.get("mode")
    if mode == "box" and marks["mask"]:
        mode = "mask"  # both are objects
    if not mode or not (marks[mode] or (mode == "mask" and marks["box"])):
        raise InputError("nothing is marked: click, drag or paint on the frame first")
    if mode == "points":
        return Prompts(
            points=tuple(f"{mark['frame']}={mark['x']},{mark['y']}" for mark in marks[mode])
        )
    if mode == "box" or not marks["mask"]:
        return Prompts(
            box=tuple(
                f"{mark['frame']}={mark['x0']},{mark['y0']},{mark['x1']},{mark['y1']}"
                for mark in marks["box"]
            )
        )
    masks, objects, gone = [], set[int](), list[tuple[int, int]]()
    # smaller boxes over larger ones, as for --box
    boxes = sorted(enumerate(marks["box"], 1), key=lambda item: -area_of(item[1]))
    for number in sorted({mark["frame"] for mark in [*marks["box"], *marks["mask"]]}):
        boxed_hw = np.zeros((marks["height"], marks["width"]), np.uint8)
        for index, box in boxes:
            if box["frame"] == number:
                boxed_hw[box["y0"] : box["y1"], box["x0"] : box["x1"]] = index
        strokes = [stroke for stroke in marks["mask"] if stroke["frame"] == number]
        labels_hw, erased = correct(tracked_at(number), boxed_hw, strokes)
        objects |= set(np.unique(labels_hw).tolist())
        gone += [(number, n) for n in sorted(erased)]
        if labels_hw.any():
            path = folder / f"given-{number:05d}.png"
            write_mask(path, labels_hw)
            masks.append(f"{number}={path}")
    if not masks:
        raise InputError("nothing is marked: everything that was painted is erased")
    # an erased object that no mask marks does not exist, so it can't be gone
    values = tuple(f"{number}={n}" for number, n in gone if n in objects)
    return Prompts(mask=tuple(masks), gone=values)


def area_of(box: dict[str, int]) -> int:
    """A box's area in pixels."""
    return (box["x1"] - box["x0"]) * (box["y1"] - box["y0"])


def correct(
    tracked_hw: Pixels | None, boxed_hw: Pixels, strokes: list[dict[str, Any]]
) -> tuple[Pixels, set[int]]:
    """The marks of one frame: boxes, and strokes over the tracked objects.

    Args:
        tracked_hw: the tracked objects, if the video was tracked.
        boxed_hw: the objects marked by boxes.
        strokes: as `marking.js` writes them.

    Returns:
        A mask `[H, W]` of the objects that are boxed, painted or changed by a stroke, and the
        numbers of tracked objects that are erased completely.
    """
    found_hw = np.zeros_like(boxed_hw) if tracked_hw is None else tracked_hw
    begin_hw = np.where(boxed_hw > 0, boxed_hw, found_hw)
    painted_hw = paint(strokes, begin_hw)
    is_touched = painted_hw != begin_hw
    touched = np.unique([*painted_hw[is_touched], *begin_hw[is_touched]])
    painted = [stroke["object"] for stroke in strokes]
    marked = np.unique([*touched, *painted, *boxed_hw[boxed_hw > 0]])
    erased = set(np.unique(found_hw[is_touched]).tolist()) - {0, *np.unique(painted_hw).tolist()}
    return np.where(np.isin(painted_hw, marked), painted_hw, np.uint8(0)), erased


def paint(strokes: list[dict[str, Any]], begin_hw: Pixels) -> Pixels:
    """Paint strokes of a round brush over labels `[H, W]`; object 0 erases."""
    image = Image.fromarray(begin_hw)
    pen = ImageDraw.Draw(image)
    for stroke in strokes:
        radius, path = stroke["radius"], [(x, y) for x, y in stroke["path"]]
        if len(path) > 1:
            pen.line(path, fill=stroke["object"], width=round(2 * radius), joint="curve")
        for x, y in path:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=stroke["object"])
    return np.array(image)
