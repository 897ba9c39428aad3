"""Finds the frame number in the name of an image, a mask or a labels file."""

import re
from pathlib import PurePath

# a name with exactly one number; a digit as in `4k` is part of a word and no number; frame numbers
# have at most 18 digits
ONE_NUMBER = re.compile(r"\D*(\d{1,18})\)?(?:[ _.-]\D*)?")
ROBOFLOW = re.compile(r"(?:_[A-Za-z]+)?\.rf\.\w+$")  # `_jpg.rf.HASH` after the name of an image
NO_LETTERS = re.compile(r"[\W_]+")  # tools write `my video.mp4` as `my-video_mp4`


def image_name(name: str) -> str:
    """The image's name without suffix, and without what Roboflow appended to it."""
    return ROBOFLOW.sub("", name)


def is_name_of_video(name: str, video: str) -> bool:
    """Whether a name without suffix is the video's."""
    return name in (video, PurePath(video).stem)


def frame_number(name: str, video: str) -> int | None:
    """The only number in a name, not counting a leading name of the video.

    Args:
        name: of the image, without suffix.
        video: name of the video's file or folder; empty if it has none.

    Returns:
        The number of `frame_000012`, `img12`, `000012_mask`, of the video's `gx01_000012` or of
        Roboflow's `frame_000012_jpg.rf.HASH`; None for a name with none or with several, as
        `Screenshot 2024-01-01`.
    """
    name = image_name(name)
    found = ONE_NUMBER.fullmatch(name[length_of_video_name(name, video) :])
    return int(found[1]) if found else None


def length_of_video_name(name: str, video: str) -> int:
    """Length of the video's name, with or without its suffix, at the beginning of a longer name; 0
    if the name does not begin so."""
    path = PurePath(video)
    if not path.stem:
        return 0
    stem = r"[\W_]+".join(map(re.escape, NO_LETTERS.split(path.stem)))
    suffix = rf"(?:[._]{re.escape(path.suffix[1:])})?" if path.suffix else ""
    # `clip_12` does not begin with the name of the video `clip_1`
    found = re.match(rf"{stem}{suffix}(?!(?<=\d)\d)(?=.)", name, re.IGNORECASE)
    return found.end() if found else 0
