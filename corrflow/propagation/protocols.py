"""Protocols of label propagation: which frames are references, how large the window and how sharp
the softmax are, and what is remembered of a frame."""

from dataclasses import dataclass, replace
from typing import Any

from corrflow.errors import InputError, check_range


@dataclass(frozen=True)
class Protocol:
    """How labels are copied through a video. Distances are in pixels and frames, so that a protocol
    means the same for encoders of any stride."""

    name: str
    propagates: bool = True
    """False: the identity baseline, in which labels stay where they were given."""
    anchors: tuple[int, ...] = ()
    """Frames that stay references to the end, counted from the first frame with given labels. If 0
    is among them, the last few frames in which objects entered later stay references as well."""
    recent: tuple[int, ...] = (1,)
    """The other references, as numbers of frames back."""
    radius: int = 24
    """Half the side of the window, in pixels; it includes every cell that it touches."""
    top_k: int = 0
    """Number of reference cells that count, the most similar ones over all references together; 0:
    all."""
    block: int = 1
    """With `top_k`: side, in cells, of the blocks that are compared first. Only the most similar
    blocks are then searched cell by cell (coarse to fine). 1: all cells are compared."""
    temperature: float = 0.0
    """Features are normalised to length 1, and their dot products divided by this; 0: features are
    not normalised, and dot products are scaled as in training."""
    whitening: float = 0.0
    """Features are whitened by their covariance over the first frame before they are normalised:
    directions in which all cells differ alike say little about which cell is which. Against noise,
    this many times the mean variance is added to each variance. 0: no whitening."""
    hardening: float = 1.0
    """What the next frames copy. 1: the decision, which is the label of each pixel, made from
    bicubically upsampled shares. 0: the shares of labels as they were copied. Between: a mean of
    both, with this weight for the decision."""
    appearance: float = 0.0
    """For masks: each label's share that is copied to a cell is multiplied by how much the cell
    looks like that label in all earlier frames, from 0 to 1, to this power; 0: not at all."""
    guided_filter: int = 0
    """Half the side, in pixels, of the windows in which the edges of masks are moved to those of
    the frame, before the label of each pixel is decided; 0: edges are not moved."""
    short_side: int = 0
    """Short side, in pixels, of the frames for which `radius` and `guided_filter` are meant; for
    smaller frames they are reduced in proportion. 0: they are never reduced."""

    def __post_init__(self) -> None:
        where = f"protocol {self.name}"
        from_0 = "radius top_k temperature whitening appearance guided_filter short_side anchors"
        check_range(where, self, from_0, 0)
        check_range(where, self, "recent block", 1)
        check_range(where, self, "hardening", 0, 1)
        if self.propagates and not self.recent and not self.anchors:
            raise InputError(
                f"{where}: no anchors, no recent: expected at least one frame to copy from"
            )

    def for_frames(self, size: tuple[int, ...]) -> "Protocol":
        """Reduce distances in proportion for frames `(H, W)` that are smaller than `short_side`."""
        share = min(size) / self.short_side if self.short_side else 1.0
        if share >= 1:
            return self
        radius, guided_filter = round(share * self.radius), round(share * self.guided_filter)
        return replace(self, radius=radius, guided_filter=guided_filter, short_side=0)


# frames back: as good as the last 20 frames, with less than half of the comparisons
SPARSE_RECENT = (1, 2, 3, 5, 8, 13, 21)
# our own, for this model: the first frame and seven earlier ones, ever further apart; alternatives
# are in docs/ablations.md
MEMORY = Protocol(
    "memory",
    anchors=(0,),
    recent=SPARSE_RECENT,
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
        # the same, with an appearance model of the labels
        replace(MEMORY, name="appearance", appearance=0.3),
        # Lai, Lu & Xie (MAST, CVPR 2020): frames 0, 5, t-1, t-3 and t-5; without its two-step
        # search of the older ones
        Protocol("mast", anchors=(0, 5), recent=(1, 3, 5), radius=48, hardening=0.0),
        # Jabri et al. (NeurIPS 2020): the first frame and the last 20, the 10 most similar cells,
        # windows of 12 cells of 8 pixels to each side
        Protocol(
            "crw",
            anchors=(0,),
            recent=tuple(range(1, 21)),
            radius=96,
            top_k=10,
            temperature=0.05,
            hardening=0.0,
        ),
        # Caron et al. (ICCV 2021): the first frame and the last 7, the 5 most similar cells,
        # windows of 12 cells of 8 pixels to each side
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
    """Change settings of a protocol, and add them to its name; those that are None stay."""
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
    """Find a protocol by name; InputError lists the names."""
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]
