"""Palettes, the colours that are classes: the 16 published with the method, or those of a file.
Also configures which palettes are predicted, with what share of the loss.

Shapes: p pixels, k classes, x 2 of (a, b) or 3 of (L, a, b).
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from corrflow.errors import InputError, check_positive
from corrflow.files import atomic_file

Palette = tuple[tuple[float, ...], ...]
"""Centres of the colour classes: rows of (a, b) or of (L, a, b)."""

# k-means centres of ab in natural frames, as published with the method
PUBLISHED: Palette = (
    (10.227485656738281, -25.504367828369141), (9.1718616485595703, -5.4802451133728027),
    (38.079753875732422, -55.176967620849609), (13.772418975830078, 29.932201385498047),
    (-22.90513801574707, 4.349820613861084), (0.3694918155670166, -7.3006887435913086),
    (-5.3544673919677734, -13.474063873291016), (-9.1021614074707031, 43.392688751220703),
    (2.8542637825012207, -18.042882919311523), (-1.2226581573486328, 21.684947967529297),
    (-7.9679098129272461, -0.25664329528808594), (33.955364227294922, 15.078691482543945),
    (22.351770401000977, -38.779991149902344), (5.7283544540405273, 8.6479434967041016),
    (54.295120239257812, -73.889358520507812), (0.19337761402130127, 0.032210350036621094),
)  # fmt: skip
CLASSES = len(PUBLISHED)
MAX_CLASSES = 256  # of a palette; every copy by attention has a channel for each
# 64 classes of Lab from 253 real videos, with weight 0.3 for L:
# `launch/shard.py palette --classes 64 --lightness 0.3`
LAB64 = Path(__file__).parent / "palettes" / "lab64.csv"


class Target(NamedTuple):
    """A palette whose classes are predicted, and how."""

    palette: Palette
    share: float
    """Share of the loss; the shares of all targets add up to 1."""
    lightness: float
    """Weight of L relative to a and b in the choice of the nearest class of Lab; not used for a
    palette of ab."""


@dataclass(frozen=True)
class TargetConfig:
    """Which colour classes the model predicts (paper, section 3.1)."""

    palette: str = ""
    """CSV file of colour classes, with a line `a,b` or `L,a,b` for each; launch/shard.py palette
    writes one. By default the 16 classes of ab that were published with the method."""
    second_palette: str = ""
    """CSV file of a second palette, whose classes are predicted as well, with a separate loss.
    Classes of Lab also separate colours of equal hue and different lightness."""
    second_share: float = 0.4
    """Share of the second palette in the loss; the first palette has the rest."""
    lightness: float = 1.0
    """Weight of L relative to a and b in the choice of the nearest class of Lab. Below 1, shadows
    change fewer classes."""

    def __post_init__(self) -> None:
        check_positive("target", self, "second_share lightness")
        if self.second_share >= 1:
            raise InputError(f"target: second_share {self.second_share}: expected less than 1")

    def targets(self) -> tuple[Target, ...]:
        """The one or two targets; InputError if a file can't be read or is not a palette."""
        palette = read_palette(Path(self.palette)) if self.palette else PUBLISHED
        if not self.second_palette:
            return (Target(palette, 1.0, self.lightness),)
        first = Target(palette, 1 - self.second_share, self.lightness)
        second_palette = read_palette(Path(self.second_palette))
        return first, Target(second_palette, self.second_share, self.lightness)


def read_palette(path: Path) -> Palette:
    """Read a CSV of 2 to 256 lines `a,b` or `L,a,b`; InputError if it is something else."""
    try:
        rows = tuple(
            tuple(float(word) for word in line.split(","))
            for line in path.read_text().splitlines()
            if line.strip()
        )
    except OSError as error:
        raise InputError(f"palette {path}: can't be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"palette {path}: {error}: expected lines a,b or L,a,b") from None
    if not np.isfinite([number for row in rows for number in row]).all():
        raise InputError(
            f"palette {path}: holds a number that is not finite: expected lines a,b or L,a,b"
        )
    if not 2 <= len(rows) <= MAX_CLASSES or {len(row) for row in rows} not in ({2}, {3}):
        widths = sorted({len(row) for row in rows})
        raise InputError(
            f"palette {path}: {len(rows)} lines of {widths} numbers: expected 2 to {MAX_CLASSES} "
            "lines a,b or L,a,b"
        )
    return rows


def fit_palette(
    colors_px: NDArray[np.float32], classes: int, seed: int = 0, lightness: float = 1.0
) -> Palette:
    """Fit a palette to the ab or Lab of pixels by k-means: the centres of `classes` clusters, the
    most frequent first. `lightness` is the weight of L in distances.

    Raises:
        InputError: there are fewer distinct colours than classes, or a palette can't have this
            number of classes.
    """
    if not 2 <= classes <= MAX_CLASSES:
        raise InputError(f"palette of {classes} classes: expected 2 to {MAX_CLASSES}")
    if (different := len(np.unique(colors_px, axis=0))) < classes:
        raise InputError(
            f"palette of {classes} classes: the pixels have {different} distinct colours: expected "
            f"at least {classes}"
        )
    weights_x = np.array([lightness, 1.0, 1.0])[-colors_px.shape[1] :]
    centers_kx, label_p = kmeans2(
        colors_px.astype(np.float64) * weights_x,
        classes,
        iter=50,
        minit="++",
        seed=seed,
        missing="raise",
    )
    order = np.argsort(-np.bincount(label_p, minlength=classes), kind="stable")
    return tuple(tuple(row) for row in (centers_kx[order] / weights_x).round(3).tolist())


def write_palette(palette: Palette, path: Path) -> None:
    """Write a palette as a CSV that `read_palette` can read."""
    with atomic_file(path) as file:
        file.write("".join(f"{','.join(map(str, row))}\n" for row in palette).encode())


def palette_digest(palette: Palette) -> str:
    """A digest of a palette's classes, which does not depend on the file's path."""
    return hashlib.sha256(json.dumps(palette).encode()).hexdigest()[:16]
