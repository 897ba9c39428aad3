"""Writes inputs for `check_newest.py`: generated videos in several formats, and a DAVIS tree.

`python scripts/newest_inputs.py VIDEOS TREE`
"""

import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from shards.synthetic import SceneConfig, write_tree

SCENE = SceneConfig(frames=16, height=96, width=128)
CODECS = {".mp4": "libx264", ".mkv": "libx264", ".avi": "mpeg4"}
TITLE = "Malm\u00f6 "  # its o umlaut is replaced by bytes that are not UTF-8


def main(videos: Path, tree: Path) -> None:
    """Write all inputs."""
    names = write_tree(tree, "val", 1, SCENE, seed=1)
    names += write_tree(tree.with_name("more"), "train", 5, SCENE, seed=2)
    videos.mkdir()
    folders = [*tree.glob("JPEGImages/480p/*"), *tree.with_name("more").glob("JPEGImages/480p/*")]
    for folder in folders:
        for suffix, codec in CODECS.items():
            write_file(videos / f"{folder.name}{suffix}", sorted(folder.iterdir()), codec)


def write_file(path: Path, frames: list[Path], codec: str) -> None:
    """Write a video file of these frames, with a title that is not UTF-8."""
    with av.open(str(path), "w") as output:
        output.metadata["title"] = TITLE
        stream: Any = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = SCENE.width, SCENE.height, "yuv420p"
        for frame in frames:
            pixels_hw3 = np.asarray(Image.open(frame))
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels_hw3, format="rgb24")))
        output.mux(stream.encode())
    title = TITLE.encode()
    path.write_bytes(path.read_bytes().replace(title, title.replace(b"\xc3\xb6", b"\xf6\xf6")))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
