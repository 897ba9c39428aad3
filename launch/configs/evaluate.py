"""The configs of the commands that evaluate, report and track: what each flag means."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from corrflow import InputError
from corrflow.attention.backends import BackendName
from corrflow.benchmarks.registry import BENCHMARKS, find_benchmark
from corrflow.device import Precision
from corrflow.errors import LARGEST_SEED, check_range
from corrflow.pretrained import DEFAULT
from corrflow.propagation.protocols import PROTOCOLS, Protocol, find_protocol, override
from corrflow.scale import SMALLEST_SIDE
from launch.configs.needed import check_needed, check_unused
from slurm.cluster import ClusterConfig, find_profile

Annotations = Literal["cvat", "coco", "labelme", "yolo"]
# of a protocol's, those that a flag may change
SETTINGS = "radius top_k block temperature whitening frames hardening appearance guided_filter"


@dataclass(frozen=True)
class EvalJob:
    """Track what is given in each sequence of a benchmark, score the result, and write a report.
    The same command again does what is left."""

    first_flags: ClassVar = (
        "benchmark",
        "root",
        "out",
        "checkpoint",
        "encoder",
        "protocol",
        "size",
        "jobs",
        "follow",
    )

    benchmark: Annotated[str, tyro.conf.arg(metavar="|".join(BENCHMARKS))]
    """Name of the benchmark; docs/evaluation.md says what each measures."""
    root: Path
    """Folder of its data, as downloaded."""
    out: Path
    """New folder for predictions, overlays, tables, metrics.json and report.html; or the folder of
    this same evaluation, which then resumes."""
    checkpoint: str = ""
    """A checkpoint of ours or a released one, or a model that ships: fast, base or large. Unless
    given, base; `none` takes random weights, as a baseline."""
    encoder: str = ""
    """An encoder to evaluate instead of a checkpoint, as train.py --model.encoder takes it:
    torchvision:NAME or timm:NAME with its published weights, or package.module:function or
    FILE.py:function, which returns a corrflow.Encoder. With --checkpoint none, random weights."""
    protocol: Annotated[str, tyro.conf.arg(metavar="|".join(PROTOCOLS))] = "paper"
    """How labels are propagated: `paper` from frame to frame, `memory` from the first frame and
    seven earlier ones, `mast`, `crw` and `dino` as those papers do, `identity` without tracking."""
    radius: int | None = None
    """Radius of the attention window in pixels, instead of the protocol's. Of `memory` this and
    --guided-filter are for frames of 480 rows: smaller frames have them in proportion."""
    top_k: int | None = None
    """Number of most similar cells to copy from, instead of the protocol's; 0 takes all."""
    block: int | None = None
    """With a top-k: number of cells along the side of the blocks that are compared first, instead
    of the protocol's; 1 compares all cells."""
    temperature: float | None = None
    """Temperature of the softmax over normalised features, instead of the protocol's; 0 takes
    features as they are, with the model's own inverse temperature."""
    whitening: float | None = None
    """Whiten the features, with this many times their mean variance added, instead of the
    protocol's; 0 does not whiten."""
    frames: int | None = None
    """Number of previous frames to copy from, instead of the protocol's."""
    hardening: float | None = None
    """How far labels are hardened before the next frames copy them, instead of the protocol's: 1
    copies the label of each pixel, 0 the soft shares."""
    appearance: float | None = None
    """Weight of appearance, instead of the protocol's: shares of labels that are copied to a cell
    are multiplied by how similar it looks to each label in all earlier frames, raised to this
    power; 0 turns it off."""
    guided_filter: int | None = None
    """Radius, in pixels, of the windows in which the edges of masks are moved to those of the
    frame, instead of the protocol's; 0 leaves them as they were copied."""
    input_scale: float = 0.0
    """Factor by which frames are enlarged before encoding. Features are averaged back, so that as
    many cells are compared: finer detail, at the square of the encoder's cost. 0 enlarges them as
    the model has it."""
    adapt: int = 0
    """Adapt the model to each sequence before it is tracked, by so many steps of learning to copy
    its colours; no label is looked at. Seconds a frame include it."""
    size: int = 0
    """Short side at which to track, in pixels, to which smaller frames are enlarged; scores are at
    the data's own size. 0 tracks at that size, too."""
    reset_gap: int = 0
    """With DAVIS: track each frame from the true mask this many frames before it, which shows what
    the features are worth without drift. 0 tracks from the first frame on, as the benchmark
    does."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto takes CUDA if there is a GPU."""
    attention: BackendName = "auto"
    """Implementation of the attention; auto takes triton on CUDA and tiled on the CPU."""
    precision: Precision = "auto"
    """Precision of the encoder's convolutions; auto takes bfloat16 where the device is made for it
    (a GPU of compute capability 8.0 or later, a processor with AMX), else float32."""
    seed: int = 0
    """Seed of random weights."""
    jobs: int = 0
    """Divide the sequences among this many jobs of a SLURM array; one more job writes the report.
    Without SLURM, or with --local, start as many processes here."""
    local: bool = False
    """With --jobs: evaluate here in as many processes, even if SLURM is installed."""
    follow: bool = False
    """With --jobs on SLURM: wait for the jobs, and show their progress."""
    cluster: ClusterConfig = field(default_factory=find_profile)

    def __post_init__(self) -> None:
        check_range("eval", self, "jobs reset_gap adapt frames", 0)
        check_range("eval", self, "seed", 0, LARGEST_SEED)
        check_needed("eval", self, "local follow cluster", "jobs")
        if self.size:
            check_range("eval", self, "size", SMALLEST_SIDE)
        if self.encoder and self.checkpoint not in ("", "none"):
            raise InputError(
                f"eval: checkpoint {self.checkpoint}, encoder {self.encoder}: expected one of them"
            )
        self.check_ignored()

    def check_ignored(self) -> None:
        """InputError names a flag that would be ignored as others are."""
        kind = find_benchmark(self.benchmark).kind
        if not find_protocol(self.protocol).propagates:
            of_model = "checkpoint encoder input_scale adapt seed"
            check_unused("eval", self, f"{of_model} {SETTINGS}", f"protocol {self.protocol}")
        if self.checkpoint != "none":
            check_unused("eval", self, "seed", f"checkpoint {self.checkpoint or DEFAULT}")
        if self.block and self.block > 1 and not self.chosen_protocol.top_k:
            raise InputError(f"eval: block {self.block}: expected a top-k above 0 with it")
        if kind == "points" and (self.appearance or self.guided_filter):
            names = "appearance guided_filter"
            check_unused("eval", self, names, f"benchmark {self.benchmark}, of points,")

    @property
    def chosen_protocol(self) -> Protocol:
        """With what was asked for instead."""
        settings = {name: getattr(self, name) for name in SETTINGS.split()}
        if (frames := settings.pop("frames")) is not None:
            settings["recent"] = tuple(range(1, frames + 1))
        return override(find_protocol(self.protocol), **settings)


@dataclass(frozen=True)
class ReportJob:
    """Put finished evaluations beside each other, and beside published results, on one page."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders that launch/eval.py --out wrote. The others of a benchmark are compared with its
    first."""
    seeds: int = 1
    """How many runs in a row differ by their training seed alone. They are shown as one, by their
    mean: report.py OLD-0 OLD-1 NEW-0 NEW-1 --seeds 2 compares two settings of two seeds each."""
    out: Path = Path("report.html")
    """HTML page to write."""
    title: str = "Evaluations compared"
    """Title of the page."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise InputError(
                "report: no run: expected the folder of a finished evaluation, or several"
            )
        if self.seeds < 1:
            raise InputError(f"report: seeds {self.seeds}: expected 1 or more")
        folders = [run.resolve() for run in self.runs]
        if repeated := [str(run) for i, run in enumerate(self.runs) if folders[i] in folders[:i]]:
            raise InputError(f"report: {', '.join(repeated)}: given before: expected each run once")


@dataclass(frozen=True)
class TrackJob:
    """Track what is marked through a video: give one of --labels, --mask, --points, --box. All
    frames are written; nothing is drawn before the first that has marks. Ctrl-C keeps what is
    done."""

    first_flags: ClassVar = (
        "video",
        "labels",
        "mask",
        "points",
        "box",
        "out",
        "write",
        "backward",
        "size",
        "protocol",
        "browser",
    )

    checkpoint: Path = Path(DEFAULT)
    """A model that ships, `fast`, `base` or `large`, or a checkpoint of ours or a released one.
    `fast` tracks several times as many frames a second, `large` is hardly more accurate than `base`
    (docs/model.md)."""
    video: Path | None = None
    """Video file, or folder of numbered frames. Of a folder of videos each is tracked, with
    --labels and --out folders as well; the same command again does what is left."""
    out: Path | None = None
    """Video to write, NAME.mp4. NAME.csv and NAME.json are written beside it, and for masks and
    boxes the folder NAME-masks. Unless given, my-tracked.mp4 of my.mp4, in the current
    folder. A folder of videos needs it."""
    labels: Path | None = None
    """Labels as a tool wrote them: CVAT's XML, COCO's JSON, Labelme's JSON or a folder of them,
    YOLO's text files, or a folder of PNGs. Polygons, masks, boxes or points of one frame or
    several, with their names."""
    write: tuple[Annotations, ...] = ()
    """Formats in which to write the labels of all frames: cvat, coco, labelme, yolo, or several of
    them, beside the results."""
    tolerance: float = 1.0
    """How far the lines of polygons that are written may be moved to have fewer corners, in
    pixels."""
    review: int = 5
    """How many frames to name at the end that are the least sure and should be looked at first;
    they are in NAME.json, too. 0 names none."""
    mask: tuple[str, ...] = ()
    """Masks: PNGs of the video's size, in which 0 is background and 1, 2, ... (or 255) are objects.
    Give FILE, FRAME=FILE, or a folder of PNGs. Without FRAME= a mask belongs to the frame that is
    named like it, or else to that of the only number in its name; one alone without a number
    belongs to the first frame. Later masks add objects or correct them."""
    points: tuple[str, ...] = ()
    """Points: x,y in pixels, or FRAME=x,y; 0,0 is the middle of the top left pixel."""
    box: tuple[str, ...] = ()
    """Boxes, each an object: x0,y0,x1,y1 in pixels, or FRAME=x0,y0,x1,y1; x1,y1 is the first pixel
    outside."""
    gone: tuple[str, ...] = ()
    """Objects that are out of sight: FRAME=OBJECT, by number or name. They are shown nowhere from
    that frame on, until one in which they are marked again."""
    names: tuple[str, ...] = ()
    """What the objects or points are called, in the order of their numbers, in tables and in what
    --write gives. Labels have names of their own."""
    start: int | None = None
    """Frame of what is given without a FRAME=, and of a mask or labelled image that is alone;
    unless given, the first. Frames of a video are counted from 0, those of a folder have the
    numbers of their files."""
    backward: bool = False
    """Also track backward, to the first frame, what is first marked in a later frame. The frames up
    to there are kept on the disk of --out meanwhile, 0.1 to 0.2 MB for each at size 480."""
    overwrite: bool = False
    """Track all frames, forget what was painted into masks, and write over files that are of
    another video or were edited. Unless given, the same command with other marks tracks only the
    frames that they concern: those to the nearest frames on both sides whose marks have not
    changed."""
    protocol: Annotated[str, tyro.conf.arg(metavar="|".join(PROTOCOLS))] = "memory"
    """How labels are propagated: `memory` from the first frame and seven earlier ones, `paper` from
    the previous frame alone, which is faster; the others as in eval.py."""
    adapt: int = 0
    """Adapt the model to the video before it is tracked, by so many steps of learning to copy its
    colours; no label is looked at. On two CPU cores a step of `base` takes two to three seconds."""
    size: int = 480
    """Short side at which to track, in pixels, to which a smaller video is enlarged; results have
    the video's own size. 0 tracks at that size, too."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto takes CUDA if there is a GPU."""
    attention: BackendName = "auto"
    """Implementation of the attention; auto takes triton on CUDA and tiled on the CPU."""
    browser: bool = False
    """Open a page, which only this machine can reach, to choose a video and mark what to track."""
    port: int = 7860
    """Port of the page."""
    jobs: int = 0
    """With a folder of videos: divide them among this many jobs of a SLURM array. Without SLURM, or
    with --local, start as many processes here."""
    local: bool = False
    """With --jobs: track here in as many processes, even if SLURM is installed."""
    follow: bool = False
    """With --jobs on SLURM: wait for the jobs to end."""
    cluster: ClusterConfig = field(default_factory=find_profile)

    def __post_init__(self) -> None:
        if self.size:
            check_range("track", self, "size", SMALLEST_SIDE)
        check_range("track", self, "port", 1, 65_535)
        check_range("track", self, "jobs tolerance review adapt", 0)
        check_needed("track", self, "local follow cluster", "jobs")
        check_needed("track", self, "port", "browser")
        if not find_protocol(self.protocol).propagates:
            check_unused("track", self, "adapt", f"protocol {self.protocol}")
        marks = self.labels or self.mask or self.points or self.box
        if self.browser and (self.video or self.out or marks):
            raise InputError(
                "track: browser: expected no video, out or marks beside it: the page asks for them"
            )
        if self.browser:
            of_videos = "gone names start backward overwrite write tolerance review jobs"
            check_unused("track", self, of_videos, "browser")

    @property
    def out_path(self) -> Path:
        """The video to write: as it is given, or called like the one that is read."""
        if self.out is not None or self.video is None:
            return self.out or Path()
        return Path(f"{self.video.absolute().stem}-tracked.mp4")
