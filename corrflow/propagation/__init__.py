"""Label propagation through a video of any length, in bounded memory.

Masks, parts, keypoints and points become soft maps over the cells of the encoder (`labels`). Each
new frame (`video`) copies them from the frames that the protocol remembers (`protocols`,
`references`), by the features of any encoder (`features`) and, if the protocol says so, by what
labels look like (`appearance`). Evaluation is in `benchmarks/`.
"""

from corrflow.propagation.labels import TrackedMasks, TrackedPoints
from corrflow.propagation.protocols import PROTOCOLS, Protocol, find_protocol
from corrflow.propagation.video import (
    propagate,
    stream,
    stream_masks,
    stream_points,
    stream_points_together,
    stream_together,
)

__all__ = [
    "PROTOCOLS",
    "Protocol",
    "TrackedMasks",
    "TrackedPoints",
    "find_protocol",
    "propagate",
    "stream",
    "stream_masks",
    "stream_points",
    "stream_points_together",
    "stream_together",
]
