"""Track what a mask marks through a video: `python launch/track.py --video my.mp4 --mask first.png --checkpoint PT --out tracked.mp4`."""

import itertools
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from corrflow import CorrFlow, InputError, load_model
from corrflow.attention import choose_backend
from corrflow.memory import keep_freed_memory
from corrflow.pictures import Pixels, overlay, read_mask, write_mask
from corrflow.propagation import stream
from corrflow.training.distributed import choose_device
from launch.command import parse, run
from launch.config import TrackJob
from shards.decode import BrokenVideoError, Footage, open_footage


def main(argv: list[str]) -> int:
    """Track, and write the video and its masks."""
    job = parse(TrackJob, argv, "track.py")
    if job.out.suffix.lower() != ".mp4":
        raise InputError(f"out {job.out}: expected a name that ends in .mp4")
    masks = job.out.with_name(f"{job.out.stem}-masks")
    if job.video.resolve() in (job.out.resolve(), masks.resolve()):
        raise InputError(f"out {job.out}: would overwrite the video itself: expected another name")
    keep_freed_memory()
    device = choose_device(job.device)
    attention = choose_backend(job.attention, device)
    model = load_model(job.checkpoint, device, attention)
    print(f"{device.type}, {attention} attention", flush=True)
    mask_hw = read_mask(job.mask)
    try:
        with open_footage(job.video) as footage:
            if mask_hw.shape != (footage.height, footage.width):
                sizes = f"{mask_hw.shape[1]}x{mask_hw.shape[0]}, the video {footage.width}x{footage.height}"
                raise InputError(f"mask {job.mask} is {sizes}: expected one size")
            if not mask_hw.any():
                raise InputError(f"mask {job.mask}: is empty: expected objects marked 1, 2, ... or 255")
            count = write_tracked(job, footage, stream_tracked(job, footage, mask_hw, model), masks)
    except BrokenVideoError as error:
        raise InputError(f"video {job.video}: {error}") from None
    print(f"tracked {count} frames: {job.out}, masks in {masks}")
    return 0


def stream_tracked(job: TrackJob, footage: Footage, mask_hw: Pixels, model: CorrFlow) -> Iterator[tuple[Pixels, Pixels]]:
    """Each frame with its labels, `[H, W, 3]` and `[H, W]`, at the video's own size."""
    size = small_size(footage.width, footage.height, job.size)
    small_mask = np.asarray(Image.fromarray(mask_hw).resize(size, Image.Resampling.NEAREST))
    shown, seen = itertools.tee(footage.frames)

    def tensors() -> Iterator[Tensor]:
        for frame_hw3 in seen:
            small = Image.fromarray(frame_hw3).resize(size, Image.Resampling.BOX)
            yield torch.from_numpy(np.array(small)).movedim(-1, 0)

    tracked = stream(model, tensors(), torch.from_numpy(small_mask.copy()))
    for index, (labels, frame_hw3) in enumerate(zip(tracked, shown, strict=True)):
        large = Image.fromarray(labels.numpy()).resize((footage.width, footage.height), Image.Resampling.NEAREST)
        yield frame_hw3, mask_hw if index == 0 else np.asarray(large)


def small_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height at which to track; a smaller video is left as it is."""
    factor = min(short_side / min(width, height), 1.0)
    return max(round(width * factor), 1), max(round(height * factor), 1)


def write_tracked(job: TrackJob, footage: Footage, tracked: Iterator[tuple[Pixels, Pixels]], masks: Path) -> int:
    """Write the overlay video (H.264) and the masks; returns the number of frames. The video appears under its name once whole."""
    job.out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = job.out.with_name(f".{job.out.name}.tmp.mp4")
    count = 0
    try:
        with av.open(str(unfinished), "w") as container:
            video = container.add_stream("libx264", rate=Fraction(footage.fps).limit_denominator(1001))
            video.width, video.height = footage.width + footage.width % 2, footage.height + footage.height % 2
            video.pix_fmt = "yuv420p"
            for count, (frame_hw3, labels_hw) in enumerate(tqdm(tracked, total=footage.count, unit="frame", desc="tracking"), 1):
                write_mask(masks / f"{count - 1:05d}.png", labels_hw)
                drawn = np.pad(overlay(frame_hw3, labels_hw), ((0, footage.height % 2), (0, footage.width % 2), (0, 0)), mode="edge")
                container.mux(video.encode(av.VideoFrame.from_ndarray(drawn, format="rgb24")))
            container.mux(video.encode())
        unfinished.replace(job.out)
        for stale in masks.glob("[0-9]*.png"):  # of an earlier, longer try
            if int(stale.stem) >= count:
                stale.unlink()
    finally:
        unfinished.unlink(missing_ok=True)
    return count


if __name__ == "__main__":
    sys.exit(run(main))
