"""The part of the page on which a frame is marked, and what the marks say. Its other half,
`marking.js`, draws and listens."""

import base64
import io
import json
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
# pixels of the longer side of a frame that is shown to be marked; marks are in the video's own
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
<canvas></canvas>
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
canvas { display: block; width: 100%; max-height: 75vh; object-fit: contain;
  border-radius: .4rem; touch-action: none; cursor: crosshair; }
label { display: flex; gap: .4rem; align-items: center; margin: 0; }
.hint { margin: .4rem 0 0; color: var(--body-text-color); opacity: .75; }
"""


def marking_canvas() -> gr.HTML:
    """The frame to be marked."""
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


def canvas_of(path: str, number: int, pixels: Pixels) -> gr.HTML:
    """What `marking.js` is told; all of it each time, for what is left out is forgotten."""
    height, width, _ = pixels.shape
    return gr.HTML(
        picture=picture_url(pixels), video=path, frame=number, width=width, height=height
    )


def picture_url(pixels: Pixels) -> str:
    """A frame as a URL that holds it."""
    image, out = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((SHOWN, SHOWN))
    image.save(out, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def read_marks(value: str, folder: Path) -> Prompts:
    """What `marking.js` tells, as the flags would say it; strokes become masks in `folder`."""
    marks = json.loads(value or "{}")
    mode = marks.get("mode")
    if not mode or not marks[mode]:
        raise InputError("nothing is marked: click, drag or paint on the frame first")
    if mode == "points":
        return Prompts(
            points=tuple(f"{mark['frame']}={mark['x']},{mark['y']}" for mark in marks[mode])
        )
    if mode == "box":
        return Prompts(
            box=tuple(
                f"{mark['frame']}={mark['x0']},{mark['y0']},{mark['x1']},{mark['y1']}"
                for mark in marks[mode]
            )
        )
    masks = []
    for number in sorted({stroke["frame"] for stroke in marks[mode]}):
        path = folder / f"given-{number:05d}.png"
        write_mask(
            path,
            paint(
                [stroke for stroke in marks[mode] if stroke["frame"] == number],
                marks["width"],
                marks["height"],
            ),
        )
        masks.append(f"{number}={path}")
    return Prompts(mask=tuple(masks))


def paint(strokes: list[dict[str, Any]], width: int, height: int) -> Pixels:
    """Strokes of a round brush as labels `[H, W]`; object 0 erases."""
    image = Image.new("L", (width, height))
    pen = ImageDraw.Draw(image)
    for stroke in strokes:
        radius, path = stroke["radius"], [(x, y) for x, y in stroke["path"]]
        if len(path) > 1:
            pen.line(path, fill=stroke["object"], width=round(2 * radius), joint="curve")
        for x, y in path:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=stroke["object"])
    return np.array(image)
