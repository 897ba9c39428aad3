"""Generated videos with exact ground truth, written as a DAVIS-2017 tree: textured objects over a
textured background.

Objects and background share one palette, so that each colour occurs in many places; light, blur and
noise change from frame to frame. Each layer is defined by its inverse motion, from a pixel of a
frame to a point on the layer's texture. Masks follow exactly from it, and point tracks from
inverting it.

Shapes: t frames, h w pixels, n points, which are (x, y) in pixels.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from tqdm import tqdm

from shards.errors import DataError, check_range
from shards.files import atomic_file
from shards.process_pool import run_in_processes

Floats = NDArray[np.float64]
TEXTURE = 320  # side of a texture, in pixels; mirrored outside
SHUTTER = (-0.25, 0.0, 0.25)  # times, in frames, over which a frame's exposure averages
# first colours of the DAVIS annotations' palette
PALETTE = [
    0, 0, 0,
    128, 0, 0,
    0, 128, 0,
    128, 128, 0,
    0, 0, 128,
    128, 0, 128,
    0, 128, 128,
    128, 128, 128,
]  # fmt: skip


@dataclass(frozen=True)
class SceneConfig:
    """Settings of a generated video."""

    frames: int = 24
    height: int = 160
    """In pixels."""
    width: int = 240
    """In pixels."""
    objects: tuple[int, int] = (2, 4)
    """Smallest and largest number of objects."""
    speed: float = 4.0
    """Largest speed of an object in pixels per frame; the background has up to half of it."""
    noise: float = 0.02
    """Standard deviation of each pixel's noise, for values from 0 to 1."""
    points: int = 8
    """Number of tracked points on each object and on the background."""

    def __post_init__(self) -> None:
        check_range("scene", self, "frames points", 1)
        check_range("scene", self, "height width", 32)
        check_range("scene", self, "objects", 1, 7)
        low, high = self.objects
        if low > high:
            raise DataError(f"scene: objects {self.objects}: expected the fewest first")


@dataclass(frozen=True)
class SyntheticVideo:
    """A rendered video and its ground truth."""

    frames_thw3: NDArray[np.uint8]
    labels_thw: NDArray[np.uint8]
    """0 is background, 1, 2, ... are objects; the last one is nearest."""
    points_nt2: Floats
    """(x, y) of each point in each frame, even if it is hidden or outside the frame."""
    visible_nt: NDArray[np.bool_]
    point_object_n: NDArray[np.uint8]
    """The label of the layer that each point lies on."""


@dataclass(frozen=True)
class Motion:
    """The motion of a layer: an affine map that changes with time, and a ripple like cloth."""

    start: Floats
    velocity: Floats
    sway: Floats
    """Amplitude (x, y), in pixels, of a slow oscillation about the straight path."""
    pace: float
    """Angular frequency of the oscillations, in radians per frame."""
    turn: float
    """Rotation in radians per frame."""
    swell: float
    """Amplitude of the logarithm of the scale."""
    shear: float
    """Amplitude of the shear, in columns per row."""
    ripple: float
    """Amplitude of the elastic wave, in pixels of the texture."""
    wavelength: float
    phase: float

    def center(self, t: float) -> Floats:
        """The centre of the layer at time t, in frames."""
        swing = math.sin(self.pace * t + self.phase) - math.sin(self.phase)
        return self.start + self.velocity * t + self.sway * swing

    def frame(self, t: float) -> Floats:
        """The affine map's matrix from texture to frame, `[2, 2]`: rotation, scale, shear."""
        angle, swing = self.turn * t + self.phase, math.sin(self.pace * t)
        rotation = np.array(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        return np.asarray(
            rotation
            @ np.array([[1.0, self.shear * swing], [0.0, 1.0]])
            * math.exp(self.swell * swing)
        )

    def wave(self, point: Floats, t: float) -> Floats:
        """The elastic displacement of points `[..., 2]` of the texture."""
        k = 2 * math.pi / self.wavelength
        x, y = point[..., 0], point[..., 1]
        across, along = (
            np.sin(k * y + self.pace * 2 * t + self.phase),
            np.cos(k * x + self.pace * 1.6 * t),
        )
        return self.ripple * np.stack([across, along], axis=-1)

    def to_texture(self, pixel: Floats, t: float) -> Floats:
        """Map pixels `[..., 2]` of the frame at time t to points on the texture, whose centre is
        (0, 0)."""
        point = (pixel - self.center(t)) @ np.linalg.inv(self.frame(t)).T
        return point + self.wave(point, t)

    def to_pixel(self, point: Floats, t: float) -> Floats:
        """The inverse of `to_texture`. The wave is a contraction (amplitude x wave number < 1/2),
        so 40 iterations are exact."""
        rigid = point
        for _ in range(40):
            rigid = point - self.wave(rigid, t)
        return rigid @ self.frame(t).T + self.center(t)


@dataclass(frozen=True)
class Layer:
    """A textured shape in motion; the background has no outline."""

    texture_hw3: Floats
    motion: Motion
    radius: float = math.inf
    lobes: tuple[tuple[int, float, float], ...] = ()
    """The outline, as (k, a, phase): the radius times 1 + sum of a cos(k angle + phase)."""

    def color(self, point: Floats) -> Floats:
        """The texture's colour at points `[..., 2]`."""
        rows, columns = point[..., 1] + TEXTURE / 2, point[..., 0] + TEXTURE / 2
        channels = [
            map_coordinates(self.texture_hw3[..., c], (rows, columns), order=1, mode="mirror")
            for c in range(3)
        ]
        return np.stack(channels, axis=-1)

    def cover(self, point: Floats) -> Floats:
        """How far the shape covers points `[..., 2]`: 0 outside, 1 inside, with a ramp of one pixel
        at the edge."""
        if math.isinf(self.radius):
            return np.ones(point.shape[:-1])
        angle = np.arctan2(point[..., 1], point[..., 0])
        edge = self.radius * (1 + sum(a * np.cos(k * angle + phase) for k, a, phase in self.lobes))
        return np.clip(edge - np.hypot(point[..., 0], point[..., 1]) + 0.5, 0, 1)


def make_texture(draw: np.random.Generator, palette: Floats) -> Floats:
    """Draw a texture: patches of the palette's colours with grain of two sizes and stripes,
    `[TEXTURE, TEXTURE, 3]` in [0, 1]."""

    def field(sigma: float, channels: int) -> Floats:
        noise = draw.standard_normal((channels, TEXTURE, TEXTURE))
        smooth = np.stack([gaussian_filter(n, sigma, mode="wrap") for n in noise], axis=-1)
        return np.asarray(smooth / smooth.std(axis=(0, 1)))

    patches = 3.0 * (field(draw.uniform(5, 12), len(palette)) + 0.4 * field(2.5, len(palette)))
    share = np.exp(patches - patches.max(axis=-1, keepdims=True))
    color_hw3 = (share / share.sum(axis=-1, keepdims=True)) @ palette
    rows, columns = np.mgrid[:TEXTURE, :TEXTURE]
    angle, period = draw.uniform(0, math.pi), draw.uniform(7, 16)
    stripes = np.sin(
        2 * math.pi * (rows * math.sin(angle) + columns * math.cos(angle)) / period
        + field(14, 1)[..., 0]
    )
    grain = (
        0.10 * field(1.2, 1)[..., 0]
        + 0.08 * field(3, 1)[..., 0]
        + draw.uniform(0.0, 0.14) * stripes
    )
    return np.asarray(np.clip(color_hw3 * (1 + grain[..., None]), 0, 1))


def make_palette(draw: np.random.Generator) -> Floats:
    """Draw four colours for a whole scene, `[4, 3]`."""
    gray = draw.uniform(0.25, 0.8, (4, 1))
    return np.asarray(np.clip(gray + draw.uniform(-0.3, 0.3, (4, 3)), 0.05, 0.95))


def make_layers(config: SceneConfig, draw: np.random.Generator) -> list[Layer]:
    """Draw the layers of a scene: the background first, the nearest object last."""
    palette = make_palette(draw)
    size = np.array([config.width, config.height])
    least = float(size.min())

    def motion(start: Floats, speed: float, radius: float) -> Motion:
        direction = draw.uniform(0, 2 * math.pi)
        velocity = (
            draw.uniform(0.3, 1) * speed * np.array([math.cos(direction), math.sin(direction)])
        )
        wavelength = draw.uniform(1.5, 2.5) * radius
        ripple = draw.uniform(0.2, 0.45) * wavelength / (2 * math.pi)
        sway, pace, turn = (
            draw.uniform(-6, 6, 2),
            draw.uniform(0.15, 0.3),
            draw.uniform(-0.03, 0.03),
        )
        swell, shear, phase = (
            draw.uniform(-0.15, 0.15),
            draw.uniform(-0.2, 0.2),
            draw.uniform(0, 2 * math.pi),
        )
        return Motion(start, velocity, sway, pace, turn, swell, shear, ripple, wavelength, phase)

    layers = [Layer(make_texture(draw, palette), motion(size / 2, config.speed / 2, least / 2))]
    for _ in range(draw.integers(config.objects[0], config.objects[1] + 1)):
        radius = draw.uniform(0.14, 0.24) * least
        path = motion(draw.uniform(0.2, 0.8, 2) * size, config.speed, radius)
        # objects drift towards the middle of the scene rather than out of it
        inward = np.where(
            (size / 2 - path.start) * path.velocity < 0, -path.velocity, path.velocity
        )
        lobes = tuple(
            (k, draw.uniform(0.05, 0.3) / k**0.7, draw.uniform(0, 2 * math.pi))
            for k in (2, 3, 4, 5)
        )
        path = Motion(**{**path.__dict__, "velocity": inward})
        layers.append(Layer(make_texture(draw, palette), path, radius, lobes))
    return layers


def render_moment(
    layers: list[Layer], pixels_hw2: Floats, t: float
) -> tuple[Floats, NDArray[np.uint8]]:
    """Render the scene at one moment: colours `[H, W, 3]`, and for each pixel the label of the
    nearest layer that covers more than half of it."""
    picture_hw3 = layers[0].color(layers[0].motion.to_texture(pixels_hw2, t))
    labels_hw = np.zeros(pixels_hw2.shape[:2], np.uint8)
    for label, layer in enumerate(layers[1:], 1):
        point_hw2 = layer.motion.to_texture(pixels_hw2, t)
        cover_hw = layer.cover(point_hw2)
        inside = cover_hw > 0
        share = cover_hw[inside][:, None]
        picture_hw3[inside] = (
            share * layer.color(point_hw2[inside]) + (1 - share) * picture_hw3[inside]
        )
        labels_hw[cover_hw > 0.5] = label
    return picture_hw3, labels_hw


def make_light(
    config: SceneConfig, draw: np.random.Generator, pixels_hw2: Floats
) -> Callable[[int], Floats]:
    """A light that moves, dims and changes its tint. Returns a function of the frame t that gives
    the factor of each pixel's colour, `[H, W, 3]`."""
    pace, phase = draw.uniform(0.1, 0.3, 3), draw.uniform(0, 2 * math.pi, 3)
    tint = draw.uniform(-0.08, 0.08, 3)
    unit_hw2 = pixels_hw2 / np.array([config.width, config.height]) - 0.5

    def light(t: int) -> Floats:
        gain = 1 + 0.15 * math.sin(pace[0] * t + phase[0])
        angle = pace[1] * t + phase[1]
        slope_hw = 0.35 * (unit_hw2 @ np.array([math.cos(angle), math.sin(angle)]))
        return np.asarray(
            gain * (1 + slope_hw)[..., None] * (1 + tint * math.sin(pace[2] * t + phase[2]))
        )

    return light


def render(config: SceneConfig, seed: int) -> SyntheticVideo:
    """Render one video; the same seed gives the same video."""
    draw = np.random.default_rng(seed)
    layers = make_layers(config, draw)
    columns, rows = np.meshgrid(
        np.arange(config.width, dtype=np.float64), np.arange(config.height, dtype=np.float64)
    )
    pixels_hw2 = np.stack([columns, rows], axis=-1)
    light = make_light(config, draw, pixels_hw2)
    frames, labels = [], []
    for t in range(config.frames):
        moments = [render_moment(layers, pixels_hw2, t + shift) for shift in SHUTTER]
        exposed_hw3 = np.mean([picture for picture, _ in moments], axis=0) * light(t)
        exposed_hw3 += config.noise * draw.standard_normal(exposed_hw3.shape)
        frames.append((np.clip(exposed_hw3, 0, 1) * 255).round().astype(np.uint8))
        labels.append(moments[SHUTTER.index(0.0)][1])
    labels_thw = np.stack(labels)
    return SyntheticVideo(
        np.stack(frames), labels_thw, *track_points(config, layers, labels_thw, draw)
    )


def track_points(
    config: SceneConfig,
    layers: list[Layer],
    labels_thw: NDArray[np.uint8],
    draw: np.random.Generator,
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.uint8]]:
    """Choose points in the first frame and track them by the layers' motion.

    Returns:
        The points `[n, t, 2]`; whether each is inside the frame with its layer on top, `[n, t]`;
        and the label of its layer, `[n]`.
    """
    points, visible, owners = [], [], []
    for label, layer in enumerate(layers):
        rows, columns = np.nonzero(labels_thw[0] == label)
        chosen = draw.permutation(len(rows))[: config.points]
        point_n2 = layer.motion.to_texture(
            np.stack([columns, rows], axis=-1)[chosen].astype(np.float64), 0
        )
        path_nt2 = np.stack(
            [layer.motion.to_pixel(point_n2, t) for t in range(config.frames)], axis=1
        )
        x_nt, y_nt = np.moveaxis(path_nt2.round().astype(int), -1, 0)
        inside_nt = (x_nt >= 0) & (x_nt < config.width) & (y_nt >= 0) & (y_nt < config.height)
        frame_nt = np.broadcast_to(np.arange(config.frames), x_nt.shape)
        top_nt = labels_thw[
            frame_nt, np.clip(y_nt, 0, config.height - 1), np.clip(x_nt, 0, config.width - 1)
        ]
        points.append(path_nt2)
        visible.append(inside_nt & (top_nt == label))
        owners.append(np.full(len(chosen), label, np.uint8))
    return np.concatenate(points), np.concatenate(visible), np.concatenate(owners)


def write_tree(
    root: Path, split: str, count: int, config: SceneConfig, seed: int, processes: int = 1
) -> list[str]:
    """Write `count` videos into a DAVIS-2017 tree, with tracks in `Tracks/480p/SEQ.npz`; returns
    the sequences' names.

    Args:
        root: of the tree, which may have other splits already.
        split: `train` or `val`: name of the list in `ImageSets/2017`, and prefix of the names.
        count: number of videos.
        config: settings of each video.
        seed: of the first video. The others take the seeds after it, so the seeds of two splits
            must be at least `count` apart.
        processes: number of processes that render.
    """
    names = [f"{split}-{number:03d}" for number in range(count)]
    jobs = [(root, name, config, seed + number) for number, name in enumerate(names)]
    with tqdm(total=count, unit="video", desc=f"generating {split}") as bar:
        for _ in run_in_processes(write_video, jobs, processes):
            bar.update()
    with atomic_file(root / "ImageSets" / "2017" / f"{split}.txt") as file:
        file.write(("\n".join(names) + "\n").encode())
    return names


def write_video(job: tuple[Path, str, SceneConfig, int]) -> None:
    """Render one video and write its frames, masks and tracks."""
    root, name, config, seed = job
    video = render(config, seed)
    for t, (frame_hw3, labels_hw) in enumerate(
        zip(video.frames_thw3, video.labels_thw, strict=True)
    ):
        save_image(
            root / "JPEGImages" / "480p" / name / f"{t:05d}.jpg",
            Image.fromarray(frame_hw3),
            quality=92,
        )
        mask = Image.frombytes("P", labels_hw.shape[::-1], labels_hw.tobytes())
        mask.putpalette(PALETTE)
        save_image(root / "Annotations" / "480p" / name / f"{t:05d}.png", mask)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, points=video.points_nt2, visible=video.visible_nt, object=video.point_object_n
    )
    with atomic_file(root / "Tracks" / "480p" / f"{name}.npz") as file:
        file.write(buffer.getvalue())


def save_image(path: Path, image: Image.Image, quality: int = 0) -> None:
    """Save an image in the format of its suffix."""
    with atomic_file(path) as file:
        image.save(file, "PNG") if path.suffix == ".png" else image.save(
            file, "JPEG", quality=quality
        )
