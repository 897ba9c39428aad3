"""The settings of packing, which `launch/shard.py` takes as flags."""

from dataclasses import dataclass

from shards.errors import DataError, check_positive, check_range
from shards.video.sampling import FOLDER_FPS, Sampling, Sizing


@dataclass(frozen=True)
class PackConfig:
    """How videos are packed into samples."""

    fps: float = 6.25
    """Frames to keep per second, by time stamp; 6.25 keeps every fourth of Kinetics' 25."""
    every: int = 0
    """Keep every n-th frame instead, whatever its time stamp; 0 uses --fps."""
    folder_fps: float = FOLDER_FPS
    """Frame rate to assume for folders of frames."""
    size: str = "256"
    """Short side of the packed frames in pixels (smaller videos keep their size), or WIDTHxHEIGHT
    to squash every frame to it."""
    quality: int = 90
    """JPEG quality, 1 to 95. Frames that are JPEGs of the right size already are kept as they
    are."""
    segment: int = 32
    """Largest number of frames in a sample."""
    shortest: int = 3
    """Smallest number of frames in a sample; a training clip must fit into it."""
    shard_mb: float = 100.0
    """Approximate size of a shard in 10^6 bytes."""
    spread: int = 32
    """Smallest number of shards, if there are enough samples, so that a small set can be divided
    among processes."""

    def __post_init__(self) -> None:
        check_positive("pack", self, "fps folder_fps shard_mb")
        check_range("pack", self, "every", 0)
        check_range("pack", self, "spread", 1)
        check_range("pack", self, "quality", 1, 95)
        check_range("pack", self, "shortest", 2)
        check_range("pack", self, "segment", 1, 1000)
        if self.segment < self.shortest:
            raise DataError(
                f"pack: segment {self.segment}: expected at least shortest, {self.shortest}"
            )
        if self.every and self.fps != PackConfig.fps:
            raise DataError(f"pack: every {self.every}, fps {self.fps}: expected one of them")
        self.sizing()

    def sizing(self) -> Sizing:
        """Parse `size`; DataError if it is malformed."""
        numbers = self.size.split("x")
        if len(numbers) > 2 or not all(n.isdecimal() and int(n) >= 8 for n in numbers):
            raise DataError(
                f"pack: size {self.size!r}: expected a short side such as 256, or WIDTHxHEIGHT "
                "such as 256x256"
            )
        return (
            Sizing(int(numbers[0]))
            if len(numbers) == 1
            else Sizing(squash=(int(numbers[0]), int(numbers[1])))
        )

    def sampling(self) -> Sampling:
        """Which frames are kept."""
        return Sampling(self.fps, self.every, self.folder_fps)
