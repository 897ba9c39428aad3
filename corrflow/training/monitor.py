"""The log of a run: `metrics.jsonl` with a line for each step, and TensorBoard curves and pictures;
only rank 0 writes."""

import json
import math
import os
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import flow_to_image

from corrflow.color import class_colors, from_input_space, rgb_to_lab
from corrflow.files import atomic_file
from corrflow.model import CorrFlow
from corrflow.palette import PUBLISHED, Palette
from corrflow.recursion import backward_cycles, forward_hops
from corrflow.training.failures import WINDOW
from corrflow.training.timing import PARTS, REDUCE

METRICS = "metrics.jsonl"
LAST_BYTES = 65_536  # read from the end of the log; they contain a whole line
TERM = "_loss"  # suffix of the loss terms' names
GROUPS = {
    "loss": "loss/total",
    "learning_rate": "schedule/learning_rate",
    "teacher_forcing": "schedule/teacher_forcing", "clips_per_second": "speed/clips_per_second",
    "data_wait": "speed/data_wait_share",
    "gradient_norm": "health/gradient_norm", "memory_gb": "health/memory_gb",
    "validation_jf": "validation/J&F", "validation_j": "validation/J",
    "validation_f": "validation/F",
    **{f"time_{part}": f"time/{part}" for part in (*PARTS, REDUCE, "other")},
}  # fmt: skip
SEQUENCES = "validation_sequences"


class Monitor:
    """The log of one run. Holds open files; `close` it."""

    def __init__(self, run: Path, step: int) -> None:
        """Continue the log of `run` after `step` steps; later lines of an earlier attempt are
        dropped, since their steps are done again."""
        self.path = run / METRICS
        keep = [line for line in read_lines(self.path) if line["step"] <= step]
        with atomic_file(self.path) as file:
            file.write("".join(json.dumps(line) + "\n" for line in keep).encode())
        self.losses = [line["loss"] for line in keep[-WINDOW:]]
        self.file = self.path.open("ab", buffering=0)
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def steps(self, lines: list[dict[str, Any]]) -> None:
        """Log consecutive steps; each line has `step` and numbers, and perhaps the dict
        `validation_sequences`."""
        self.append("".join(json.dumps(line) + "\n" for line in lines).encode())
        for line in lines:
            figures = {tag: line[name] for name, tag in GROUPS.items() if name in line}
            figures |= {f"loss/{name}": term for name, term in loss_terms(line).items()}
            if SEQUENCES in line:
                figures |= {
                    f"validation_sequence/{name}": figure
                    for name, figure in line[SEQUENCES].items()
                }
            for tag, figure in figures.items():
                self.board.add_scalar(tag, figure, line["step"])

    def append(self, text: bytes) -> None:
        """Append whole lines to the file, or leave it unchanged."""
        size = os.fstat(self.file.fileno()).st_size
        try:
            rest = memoryview(text)
            while rest:
                rest = rest[self.file.write(rest) :]
            os.fsync(self.file.fileno())
        except OSError:
            self.file.truncate(size)
            raise

    def pictures(self, group: str, pictures: dict[str, Tensor], step: int) -> None:
        """Log pictures, each `[3, H, W]`, uint8 or in [0, 1]."""
        for name, picture_3hw in pictures.items():
            self.board.add_image(
                f"{group}/{name}",
                picture_3hw.clamp(0, 255 if picture_3hw.dtype == torch.uint8 else 1).cpu(),
                step,
            )
        self.board.flush()

    def flush(self) -> None:
        """Write out what is buffered; needed before a checkpoint, since its steps are not done
        again."""
        self.board.flush()

    def close(self) -> None:
        """Write out what is buffered, and close the files."""
        self.file.close()
        self.board.close()


def loss_terms(line: dict[str, Any]) -> dict[str, float]:
    """The terms of the loss in a line of the log, by name."""
    return {name.removesuffix(TERM): line[name] for name in line if name.endswith(TERM)}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; those that are cut short or damaged are left out."""
    if not path.exists():
        return []
    return [line for text in path.read_bytes().splitlines() if (line := parse_line(text))]


def read_last(run: Path) -> dict[str, Any]:
    """The newest line of a run's metrics, read from the end of the file; empty if there is none."""
    path = run / METRICS
    if not path.exists():
        return {}
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - LAST_BYTES, 0))
        texts = file.read().splitlines()
    # the first line may be incomplete, since reading began in the middle of the file
    return next((line for text in reversed(texts) if (line := parse_line(text))), {})


def parse_line(text: bytes) -> dict[str, Any] | None:
    """A line of the log; None if it was cut short by a kill, or is damaged."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and line.keys() >= {"step", "loss"} else None


class ClipVisualization(NamedTuple):
    """The tensors of one clip that are drawn: its frames, the encoder's inputs and the true
    colours."""

    frames_t3hw: Tensor
    inputs_t3hw: Tensor
    colors_tkhw: Tensor


@torch.no_grad()
def draw_clip(
    model: CorrFlow, clip: ClipVisualization, palette: Palette = PUBLISHED
) -> dict[str, Tensor]:
    """Pictures of one clip: each is its frames side by side, `[3, H, T W]` in [0, 1].

    In `reconstructed`, frame 0 has its true colours and the others are the model's own copies.
    `cycle` is frame 0 after each cycle.
    """
    was_training = model.training
    model.eval()
    features = [model.encode_input(frame_3hw[None]) for frame_3hw in clip.inputs_t3hw]
    colors_1tkhw = clip.colors_tkhw[None]
    _, copies = forward_hops(model, features, colors_1tkhw, (False,) * (len(features) - 2))
    cycles = backward_cycles(model, features, copies)
    flows = [attention_flow(model, target, source) for source, target in pairwise(features)]
    model.train(was_training)
    lightness_thw = F.avg_pool2d(rgb_to_lab(clip.frames_t3hw)[:, :1], model.stride)[:, 0]
    copied_tkhw = torch.cat([clip.colors_tkhw[:1], *copies])
    cycled_nkhw = torch.cat(cycles)
    first_nhw = lightness_thw[:1].expand(len(cycled_nkhw), -1, -1)
    cells = {
        "true_colors": class_colors(clip.colors_tkhw, lightness_thw, palette),
        "reconstructed": class_colors(copied_tkhw, lightness_thw, palette),
        "cycle": class_colors(cycled_nkhw, first_nhw, palette),
        "flow": torch.cat([flow_picture(flow, model.config.radius) for flow in flows]),
    }
    pictures = {
        "input": clip.frames_t3hw,
        "augmented": from_input_space(clip.inputs_t3hw, model.config.input),
    }
    # nearest-neighbour upsampling leaves the cells visible
    for name, cells_n3hw in cells.items():
        pictures[name] = F.interpolate(cells_n3hw, scale_factor=model.stride, mode="nearest")
    return {name: side_by_side(frames_n3hw) for name, frames_n3hw in pictures.items()}


def attention_flow(model: CorrFlow, target: Tensor, reference: Tensor) -> Tensor:
    """The mean displacement from each cell to where it copies from: `[1, 2, h, w]` (x, y) in
    cells."""
    height, width = target.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place_12hw = torch.stack([columns, rows])[None].to(target)
    return model.propagate_values(target, reference, place_12hw) - place_12hw


def flow_picture(flow_12hw: Tensor, radius: int) -> Tensor:
    """Draw flow as colours `[1, 3, h, w]` in [0, 1]: hue is direction, saturation is length, which
    is full at the window's corner."""
    longest = math.hypot(radius, radius)
    # after a bad step the features may be NaN before the next step's loss shows it
    flow_12hw = flow_12hw.nan_to_num(0.0, longest, -longest)
    # flow_to_image scales by the longest vector of the picture; one more row with a known length
    # makes pictures comparable
    ruler = torch.full_like(flow_12hw[..., :1, :], longest / math.sqrt(2))
    colors: Tensor = flow_to_image(torch.cat([flow_12hw, ruler], dim=-2)[0].float())
    return colors[None, :, :-1].float() / 255


def side_by_side(frames_t3hw: Tensor) -> Tensor:
    """Join frames `[T, 3, H, W]` to one picture `[3, H, T W]`."""
    return torch.cat(list(frames_t3hw), dim=-1)
