"""Figures that papers report on our benchmarks, which reports show beside our own. Nothing here was
measured by this project.

Figures are in percent, as papers print them, under the names of the benchmark's `figures`.
Protocols, resolutions and training data differ between papers.
"""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One method's figures."""

    method: str
    paper: str
    figures: dict[str, float]
    """In percent."""
    second_hand: bool = False
    """Taken from a later paper's table, not from the method's own paper."""


@dataclass(frozen=True)
class DataSet:
    """A benchmark's data set and its published figures; some have a title only."""

    title: str
    sequences: tuple[str, ...] | int = 0
    """The sequences' names, or only their number if the names are not known here."""
    published: tuple[Published, ...] = ()

    def is_all(self, names: Collection[str]) -> bool:
        """Whether these are all sequences of the data set; figures on other sets of sequences do
        not compare."""
        if isinstance(self.sequences, int):
            return len(names) == self.sequences
        return set(names) == set(self.sequences)


DAVIS_2016 = (
    "blackswan", "bmx-trees", "breakdance", "camel", "car-roundabout", "car-shadow", "cows",
    "dance-twirl", "dog", "drift-chicane", "drift-straight", "goat", "horsejump-high", "kite-surf",
    "libby", "motocross-jump", "paragliding-launch", "parkour", "scooter-black", "soapbox",
)  # fmt: skip
DAVIS_2017 = (
    *DAVIS_2016, "bike-packing", "dogs-jump", "gold-fish", "india", "judo", "lab-coat", "loading",
    "mbike-trick", "pigs", "shooting",
)  # fmt: skip

COLORIZATION = "Vondrick et al., ECCV 2018"
TIMECYCLE = "Wang, Jabri & Efros, CVPR 2019"
CORRFLOW = "Lai & Xie, BMVC 2019"
UVC = "Li et al., NeurIPS 2019"
MAST = "Lai, Lu & Xie, CVPR 2020"
CRW = "Jabri, Owens & Efros, NeurIPS 2020"
DUL = "Araslanov, Schaub-Meyer & Roth, NeurIPS 2021"
LIIR = "Li et al., CVPR 2022"
SPATIAL = "Li & Liu, CVPR 2023"
DIFT = "Tang et al., NeurIPS 2023"
HVC = "Pei et al., arXiv 2404.13505"
TED = "arXiv 2512.02339"


def davis(overall: float, *rest: float) -> dict[str, float]:
    """J&F and, if the paper reports them, J mean, J recall, F mean and F recall."""
    columns = ("J-Mean", "J-Recall", "F-Mean", "F-Recall")
    return {"J&F-Mean": overall, **(dict(zip(columns, rest, strict=True)) if rest else {})}


DATA_SETS = {
    "davis2016": DataSet(
        "DAVIS-2016, validation", DAVIS_2016, (Published("HVC", HVC, davis(80.1)),)
    ),
    "davis2017": DataSet(
        "DAVIS-2017, validation",
        DAVIS_2017,
        (
            Published(
                "identity: the first mask in all frames",
                CORRFLOW,
                davis(22.9, 22.1, 15.9, 23.6, 11.7),
            ),
            Published("Colorization", COLORIZATION, davis(34.0)),
            Published("TimeCycle, 480 pixel crop", TIMECYCLE, davis(48.2)),
            Published(
                "CorrFlow, trained on Kinetics", CORRFLOW, davis(49.5, 47.7, 53.2, 51.3, 56.5)
            ),
            Published("CorrFlow, trained on OxUvA", CORRFLOW, davis(50.3, 48.4, 53.2, 52.2, 56.0)),
            Published("UVC", UVC, davis(59.5)),
            Published("MAST", MAST, davis(65.5)),
            Published("CRW", CRW, davis(67.6, 64.6, 75.8, 70.6, 83.2)),
            Published("DUL", DUL, davis(69.3)),
            Published("LIIR, unofficial code", LIIR, davis(72.2)),
            Published("HVC", HVC, davis(73.1)),
            Published("Spa-then-Temp, ResNet-50", SPATIAL, davis(74.1)),
            Published("DIFT", DIFT, davis(75.7), second_hand=True),
            Published("TED", TED, davis(77.6), second_hand=True),
        ),
    ),
    "davis2017-test": DataSet("DAVIS-2017, test-dev"),
    "youtube-vos": DataSet(
        "YouTube-VOS, validation",
        474,
        (
            Published("CorrFlow, 2018 edition", CORRFLOW, {"Overall": 46.6}),
            Published("MAST, 2018 edition", MAST, {"Overall": 64.2}),
        ),
    ),
    "jhmdb": DataSet(
        "JHMDB, split 1, test",
        268,
        (
            Published("CorrFlow", CORRFLOW, {"PCK@0.1": 58.5, "PCK@0.2": 78.8}, second_hand=True),
            Published("CRW", CRW, {"PCK@0.1": 59.3, "PCK@0.2": 84.9}),
        ),
    ),
    "vip": DataSet("VIP, validation", 50, (Published("CRW", CRW, {"mIoU": 38.6}),)),
    "vip-instances": DataSet("VIP, validation, parts of each person"),
    "badja": DataSet("BADJA"),
    "tapvid": DataSet("TAP-Vid-DAVIS"),
}
