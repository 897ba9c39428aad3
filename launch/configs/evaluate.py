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
from corrflow.scale import check_short_side
from launch.configs.needed import check_needed, check_unused
from slurm.cluster import ClusterConfig, find_profile

Annotations = Literal["cvat", "coco", "labelme", "yolo"]
# settings of a protocol that flags may change
SETTINGS = "radius top_k block temperature whitening frames hardening appearance guided_filter"


@dataclass(frozen=True)
class EvalJob:
    """Track each sequence of a benchmark from its given labels, score the result, and write a
    report. The same command again resumes an interrupted evaluation."""

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
    """New folder for predictions, overlays, tables, metrics.json and report.html, or the folder of
    this same evaluation, which is then resumed."""
    checkpoint: str = ""
    """A checkpoint of ours or a released one, or a model that ships: fast, base (the default) or
    large. `none` takes random weights, as a baseline."""
    encoder: str = ""
    """An encoder to evaluate instead of a checkpoint, as train.py --model.encoder takes it:
    torchvision:NAME or timm:NAME with its published weights, or package.module:function or
    FILE.py:function, which returns a corrflow.Encoder. With --checkpoint none, its weights are
    random."""
    protocol: Annotated[str, tyro.conf.arg(metavar="|".join(PROTOCOLS))] = "paper"
    """How labels are propagated: `paper` from frame to frame, `memory` from the first frame and
    seven earlier ones, `mast`, `crw` and `dino` as in those papers, `identity` without tracking."""
    radius: int | None = None
    """Radius of the attention window in pixels, instead of the protocol's. With `memory`, this and
    --guided-filter apply to frames of 480 rows, and are scaled down for smaller frames."""
    top_k: int | None = None
    """Number of most similar cells to copy from, instead of the protocol's; 0 copies from all."""
    block: int | None = None
    """With a top-k: side, in cells, of the blocks that are compared first, instead of the
    protocol's; 1 compares all cells."""
    temperature: float | None = None
    """Temperature of the softmax over normalised features, instead of the protocol's; 0 takes
    features without normalising them, with the model's own inverse temperature."""
    whitening: float | None = None
    """Whiten the features, with this multiple of their mean variance added to the covariance,
    instead of the protocol's; 0 does not whiten."""
    frames: int | None = None
    """Number of previous frames to copy from, instead of the protocol's."""
    hardening: float | None = None
    """How far labels are hardened before the next frames copy them, instead of the protocol's: 1
    copies one hard label for each pixel, 0 copies the soft labels."""
    appearance: float | None = None
    """Weight of appearance, instead of the protocol's: the soft labels that are copied to a cell
    are multiplied by the cell's similarity to each label in all earlier frames, raised to this
    power; 0 turns it off."""
    guided_filter: int | None = None
    """Radius, in pixels, of the guided filter, which aligns the edges of masks with those of the
    frame, instead of the protocol's; 0 leaves masks as they were copied."""
    input_scale: float = 0.0
    """Factor by which frames are enlarged before encoding. Features are averaged back, so that the
    number of compared cells is the same: finer detail, at an encoder's cost that grows with the
    factor's square. 0 takes the model's own factor."""
    adapt: int = 0
    """Adapt the model to each sequence before tracking it, by this many steps of learning to copy
    its colours; labels are not used. The seconds per frame include it."""
    size: int = 0
    """Short side at which to track, in pixels; smaller frames are enlarged to it, and scores are
    computed at the data's own size. 0 tracks at the data's own size."""
    reset_gap: int = 0
    """With DAVIS: track each frame from the true mask this many frames before it, which measures
    the features without drift. 0 tracks from the first frame on, as the benchmark does."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto takes CUDA if there is a GPU."""
    attention: BackendName = "auto"
    """Implementation of the attention; auto takes triton on CUDA and tiled on the CPU."""
    precision: Precision = "auto"
    """Precision of the encoder's convolutions; auto takes bfloat16 if the device supports it in
    hardware (a GPU of compute capability 8.0 or later, a processor with AMX), else float32."""
    seed: int = 0
    """Seed of random weights."""
    jobs: int = 0
    """Divide the sequences among this many jobs of a SLURM array; one more job writes the report.
    Without SLURM, or with --local, start this many processes here."""
    local: bool = False
    """With --jobs: evaluate here in that many processes, even if SLURM is installed."""
    follow: bool = False
    """With --jobs on SLURM: wait for the jobs, and show their progress."""
    cluster: ClusterConfig = field(default_factory=find_profile)

    def __post_init__(self) -> None:
        check_range("eval", self, "jobs reset_gap adapt frames", 0)
        check_range("eval", self, "seed", 0, LARGEST_SEED)
        check_needed("eval", self, "local follow cluster", "jobs")
        check_short_side("eval", self.size)
        if self.encoder and self.checkpoint not in ("", "none"):
            raise InputError(
                f"eval: checkpoint {self.checkpoint}, encoder {self.encoder}: expected one of them"
            )
        self.check_ignored()

    def check_ignored(self) -> None:
        """InputError names a flag that another flag makes useless."""
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
        """The protocol, with the settings that flags change."""
        settings = {name: getattr(self, name) for name in SETTINGS.split()}
        if (frames := settings.pop("frames")) is not None:
            settings["recent"] = tuple(range(1, frames + 1))
        return override(find_protocol(self.protocol), **settings)


@dataclass(frozen=True)
class ReportJob:
    """Compare finished evaluations with each other and with published results, on one page."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders that launch/eval.py --out wrote. For each benchmark, the first is compared with the
    others."""
    seeds: int = 1
    """Number of consecutive runs that differ only by their training seed. Such runs are shown as
    one, by their mean: report.py OLD-0 OLD-1 NEW-0 NEW-1 --seeds 2 compares two settings of two
    seeds each."""
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
    """Track objects or points through a video: mark them with --labels, --mask, --points or --box.
    All frames are written; frames before the first marked one stay as they are. Ctrl-C keeps the
    frames that are done."""

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
    `fast` tracks several times as many frames a second; `large` is hardly more accurate than `base`
    (docs/model.md)."""
    video: Path | None = None
    """Video file, or folder of numbered frames. With a folder of videos, --labels and --out must be
    folders, too, and each video is tracked; the same command again tracks those that are
    missing."""
    out: Path | None = None
    """Video to write, NAME.mp4. NAME.csv and NAME.json are written beside it, and for masks and
    boxes the folder NAME-masks. By default, my.mp4 gives my-tracked.mp4 in the current folder.
    Required for a folder of videos."""
    labels: Path | None = None
    """Labels in a tool's format: CVAT's XML, COCO's JSON, Labelme's JSON or a folder of them,
    YOLO's text files, or a folder of PNGs. They may be polygons, masks, boxes or points of one
    frame or several, with names."""
    write: tuple[Annotations, ...] = ()
    """Formats in which to write the labels of all frames beside the results: one or several of
    cvat, coco, labelme, yolo."""
    tolerance: float = 1.0
    """How far, in pixels, the outlines of written polygons may deviate to have fewer corners."""
    review: int = 5
    """Number of least confident frames to print at the end, which should be looked at first;
    NAME.json has them, too."""
    mask: tuple[str, ...] = ()
    """Masks: PNGs of the video's size, in which 0 is background and 1, 2, ... (or 255) are objects.
    Give FILE, FRAME=FILE, or a folder of PNGs. Without FRAME=, a mask belongs to the frame whose
    file has its name, or else to the frame of the only number in its name; a single mask without a
    number belongs to the first frame. Later masks add objects or correct them."""
    points: tuple[str, ...] = ()
    """Points: x,y in pixels, or FRAME=x,y; 0,0 is the centre of the top left pixel."""
    box: tuple[str, ...] = ()
    """Boxes, one for each object: x0,y0,x1,y1 in pixels, or FRAME=x0,y0,x1,y1; x1,y1 is the first
    pixel outside."""
    gone: tuple[str, ...] = ()
    """Objects that are out of sight: FRAME=OBJECT, by number or name. From that frame on they are
    absent, until the next frame in which they are marked."""
    names: tuple[str, ...] = ()
    """Names of the objects or points, in the order of their numbers, for the tables and the files
    of --write. Labels have names of their own."""
    start: int | None = None
    """Frame of marks that are given without FRAME=, and of a single mask or labelled image; the
    first by default. Frames of a video are counted from 0, those of a folder have the numbers of
    their files."""
    backward: bool = False
    """Also track objects backward to the first frame if they are first marked in a later one. The
    frames up to there are stored on the disk of --out meanwhile, 0.1 to 0.2 MB each at size 480."""
    overwrite: bool = False
    """Track all frames, discard what was painted into masks, and overwrite files that belong to
    another video or were edited. Without this flag, the same command with other marks tracks only
    the frames that they affect: up to the nearest frames on both sides whose marks have not
    changed."""
    protocol: Annotated[str, tyro.conf.arg(metavar="|".join(PROTOCOLS))] = "memory"
    """How labels are propagated: `memory` from the first frame and seven earlier ones, `paper` from
    the previous frame alone, which is faster; the others as in eval.py."""
    adapt: int = 0
    """Adapt the model to the video before tracking it, by this many steps of learning to copy its
    colours; labels are not used. On two CPU cores a step of `base` takes two to three seconds."""
    size: int = 480
    """Short side at which to track, in pixels; a smaller video is enlarged to it, and results have
    the video's own size. 0 tracks at the video's own size."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; auto takes CUDA if there is a GPU."""
    attention: BackendName = "auto"
    """Implementation of the attention; auto takes triton on CUDA and tiled on the CPU."""
    browser: bool = False
    """Open a page to choose a video and mark what to track; only this machine can reach it."""
    port: int = 7860
    """Port of the page."""
    jobs: int = 0
    """With a folder of videos: divide them among this many jobs of a SLURM array. Without SLURM, or
    with --local, start this many processes here."""
    local: bool = False
    """With --jobs: track here in that many processes, even if SLURM is installed."""
    follow: bool = False
    """With --jobs on SLURM: wait for the jobs to end."""
    cluster: ClusterConfig = field(default_factory=find_profile)

    def __post_init__(self) -> None:
        check_short_side("track", self.size)
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
        """The video to write: the one given, or NAME-tracked.mp4 after the input's name."""
        if self.out is not None or self.video is None:
            return self.out or Path()
        return Path(f"{self.video.absolute().stem}-tracked.mp4")
