"""Protocols of label propagation: which frames are references, how large the window is, how sharp
the softmax, and what is remembered of a frame."""

from dataclasses import dataclass, replace
from typing import Any

from corrflow.errors import InputError, check_range


@dataclass(frozen=True)
class Protocol:
    """A way to copy labels through a video. Distances are pixels and frames, so that encoders of
    any stride can be compared."""

    name: str
    propagates: bool = True
    """False: each frame gets what was given, where it was given: the identity baseline."""
    anchors: tuple[int, ...] = ()
    """Frames that stay references to the end, counted from the first in which something is given.
    With 0 among them, so do the last few in which objects entered later."""
    recent: tuple[int, ...] = (1,)
    """How many frames back the other references are."""
    radius: int = 24
    """Half the side of the window, in pixels; cells that it touches count."""
    top_k: int = 0
    """Reference cells that count, the most similar ones over all references together; 0: all."""
    block: int = 1
    """With `top_k`: cells along the side of the blocks that are compared first, of which the most
    similar are looked into (coarse to fine); 1: all cells are compared."""
    temperature: float = 0.0
    """Features are normalised to length 1, and their dot products divided by this; 0: features as
    they are, scaled as in training."""
    whitening: float = 0.0
    """Features are whitened by their covariance over the first frame, before they are normalised:
    directions in which all cells differ alike say little of which is which. So many times the mean
    variance is added to each, against noise; 0: as they are."""
    hardening: float = 1.0
    """What the next frames copy. 1: the decision, which is the label of each pixel, made from
    bicubically upsampled shares. 0: the shares of labels as they were copied. Between: so much of
    the decision, and of the shares the rest."""
    appearance: float = 0.0
    """Of masks: the shares of labels that are copied to a cell are each multiplied by how much the
    cell looks like that label in all frames before, from 0 to 1, to this power; 0: they are not."""
    guided_filter: int = 0
    """Half the side, in pixels, of the windows in which the edges of masks are moved to those of
    the frame, before the label of each pixel is decided; 0: edges stay as they are copied."""
    short_side: int = 0
    """Rows or columns, whichever are fewer, of the frames that `radius` and `guided_filter` are
    for: smaller frames have them in proportion. 0: all frames have them as they are."""

    def __post_init__(self) -> None:
        place = f"protocol {self.name}"
        from_0 = "radius top_k temperature whitening appearance guided_filter short_side anchors"
        check_range(place, self, from_0, 0)
        check_range(place, self, "recent block", 1)
        check_range(place, self, "hardening", 0, 1)
        if self.propagates and not self.recent and not self.anchors:
            raise InputError(
                f"{place}: no anchors, no recent: expected at least one of them to copy from"
            )

    def for_frames(self, size: tuple[int, ...]) -> "Protocol":
        """With distances in proportion to frames `(H, W)`."""
        share = min(size) / self.short_side if self.short_side else 1.0
        if share >= 1:
            return self
        radius, guided_filter = round(share * self.radius), round(share * self.guided_filter)
        return replace(self, radius=radius, guided_filter=guided_filter, short_side=0)


# frames back: as good as the last 20 in a row, at less than half of the comparisons
FURTHER = (1, 2, 3, 5, 8, 13, 21)
# ours, for this model: the first frame and seven before, ever further apart; docs/ablations.md has
# what was tried
MEMORY = Protocol(
    "memory",
    anchors=(0,),
    recent=FURTHER,
    radius=144,
    top_k=5,
    block=2,
    temperature=0.05,
    whitening=0.2,
    hardening=0.2,
    guided_filter=16,
    short_side=480,
)
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # Lai & Xie, section 4.2: the previous frame alone, hard labels at each step, native size,
        # windows of 13x13 cells of 4 pixels
        Protocol("paper"),
        MEMORY,
        # the same, and what labels look like
        replace(MEMORY, name="appearance", appearance=0.3),
        # Lai, Lu & Xie (MAST, CVPR 2020): frames 0, 5, t-1, t-3 and t-5; not its search of the
        # older ones in two steps
        Protocol("mast", anchors=(0, 5), recent=(1, 3, 5), radius=48, hardening=0.0),
        # Jabri et al. (NeurIPS 2020): the first frame and 20 before, the 10 most similar cells; 12
        # cells of 8 pixels
        Protocol(
            "crw",
            anchors=(0,),
            recent=tuple(range(1, 21)),
            radius=96,
            top_k=10,
            temperature=0.05,
            hardening=0.0,
        ),
        # Caron et al. (ICCV 2021): the first frame and 7 before, the 5 most similar cells; 12 cells
        # of 8 pixels
        Protocol(
            "dino",
            anchors=(0,),
            recent=tuple(range(1, 8)),
            radius=96,
            top_k=5,
            temperature=0.1,
            hardening=0.0,
        ),
        Protocol("identity", propagates=False),
    )
}


def override(protocol: Protocol, **settings: Any) -> Protocol:
    """With other settings, and a name that says so; those that are None stay as they are."""
    changed = {
        name: value
        for name, value in settings.items()
        if value is not None and value != getattr(protocol, name)
    }
    words = [protocol.name]
    for name, value in changed.items():
        words.append(f"{name} {len(value) if isinstance(value, tuple) else value}")
    return replace(protocol, **changed, name=", ".join(words))


def find_protocol(protocol: str | Protocol) -> Protocol:
    """A protocol by its name; InputError lists the names."""
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]
