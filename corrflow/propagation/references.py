"""The reference frames that labels are copied from: a bounded number, however long the video.

Shapes: b videos, r references, c channels, k labels, h w cells.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from corrflow.attention import restricted_attention
from corrflow.model import CorrFlow
from corrflow.propagation.appearance import AppearanceModel
from corrflow.propagation.labels import merge_given_labels
from corrflow.propagation.protocols import Protocol
from corrflow.whitening import Whitening

# how many frames with later marks stay references, the last ones, so that memory stays bounded
LATE_REFERENCES = 4
# agreement is computed in blocks of 2x2 cells, over those that are at most CLOSE blocks from one in
# which the label's share exceeds PRESENT
CLOSE, PRESENT = 2, 0.05


class Reference(NamedTuple):
    """A frame that labels may be copied from."""

    features_bchw: Tensor
    values_bkhw: Tensor
    given_bk: Tensor
    """bool: which labels were given in the frame."""


class References:
    """Features and soft labels of the frames that a protocol remembers, for several videos in
    step."""

    def __init__(
        self, protocol: Protocol, model: CorrFlow, *, with_agreement: bool = False
    ) -> None:
        """Start without references; `with_agreement`: whether to compute `agreement`."""
        self.protocol, self.model, self.with_agreement = protocol, model, with_agreement
        self.kept: dict[int, Reference] = {}
        self.entries: list[int] = []
        self.first: int | None = None
        self.whitening: Whitening | None = None
        self.appearance: AppearanceModel | None = None

    def prepare(self, features_bchw: Tensor) -> Tensor:
        """Whiten and normalise features if the protocol says so; whitening is fitted to the first
        frame's."""
        if self.protocol.whitening:
            self.whitening = self.whitening or Whitening.fit(features_bchw, self.protocol.whitening)
            features_bchw = self.whitening.apply(features_bchw)
        return self.normalise(features_bchw)

    def normalise(self, features_bchw: Tensor) -> Tensor:
        """Normalise features to length 1 if the protocol has a temperature."""
        if self.protocol.temperature:
            features_bchw = F.normalize(features_bchw, dim=1)
        # in the precision they were computed in: a higher one costs time and adds no information
        return features_bchw.to(self.model.precision)

    def copy(self, number: int, features_bchw: Tensor) -> Tensor | None:
        """Copy soft labels `[B, K, h, w]` to frame `number` from all its references; None if there
        is no reference yet."""
        references = [self.kept[frame] for frame in self.select_frames(number)]
        if not references:
            return None
        copied_bkhw = self.attend(features_bchw, references)
        if self.appearance is None:
            return copied_bkhw
        return self.appearance.reweight(copied_bkhw, features_bchw, self.protocol.appearance)

    def agreement(self, features_bchw: Tensor, copied_bkhw: Tensor | None) -> Tensor | None:
        """How far the copied labels agree with labels that are copied from the given frames alone,
        from anywhere in these.

        For each label, the smaller and the larger of both shares are summed over the cells that
        have the label or are close to it. Agreement is the ratio of the two sums.

        If tracking has drifted, the recent references have drifted as well, so the copy is clear
        although it is wrong; the given frames have not drifted. Cells far from the label that look
        like it in the given frames say nothing about the copy, so they do not count.

        Args:
            features_bchw: features of the frame, from `prepare`.
            copied_bkhw: what `copy` returned for them.

        Returns:
            `[B, K]` from 0 to 1; None if it is not to be computed, nothing was copied, or the
            protocol's anchors do not include the first given frame.
        """
        if not self.with_agreement or copied_bkhw is None or 0 not in self.protocol.anchors:
            return None
        given = [kept for frame, kept in self.kept.items() if frame in (self.first, *self.entries)]
        # blocks of 2x2 cells do as well, and are compared in a sixteenth of the time
        coarse = [
            one._replace(
                features_bchw=self.normalise(coarser(one.features_bchw)),
                values_bkhw=coarser(one.values_bkhw),
            )
            for one in given
        ]
        query_bchw, copied_bkhw = self.normalise(coarser(features_bchw)), coarser(copied_bkhw)
        is_close_bkhw = F.max_pool2d(copied_bkhw, 2 * CLOSE + 1, 1, CLOSE) > PRESENT
        found_bkhw = self.attend(query_bchw, coarse, everywhere=True) * is_close_bkhw
        less_bk, more_bk = (
            side(found_bkhw, copied_bkhw).sum(dim=(2, 3)) for side in (torch.minimum, torch.maximum)
        )
        return less_bk / more_bk.clamp_min(1e-6)

    def attend(
        self, features_bchw: Tensor, references: list[Reference], *, everywhere: bool = False
    ) -> Tensor:
        """Copy soft labels to a frame from these references, within the protocol's window or from
        everywhere."""
        keys = torch.stack([reference.features_bchw for reference in references], dim=1)
        values = torch.stack([reference.values_bkhw for reference in references], dim=1)
        protocol, model = self.protocol, self.model
        radius = -(-protocol.radius // model.stride)
        if everywhere:
            radius = max(features_bchw.shape[-2:])
        block = protocol.block if protocol.top_k else 1
        scale = model.config.inverse_temperature
        if protocol.temperature:
            scale = 1 / protocol.temperature
        # `triton` was chosen once for the device, and may not support these features and this
        # protocol; `auto` takes it where it does
        attention = "auto" if model.attention == "triton" else model.attention
        return restricted_attention(
            features_bchw, keys, values, radius, scale, protocol.top_k, attention, block
        )

    def select_frames(self, number: int) -> list[int]:
        """The frames that frame `number` copies from, in order."""
        wanted = {number - back for back in self.protocol.recent} | self.anchors()
        return sorted(frame for frame in wanted if frame in self.kept)

    def anchors(self) -> set[int]:
        """The frames that stay references to the end."""
        first = self.first or 0
        late = self.entries if 0 in self.protocol.anchors else []
        return {first + anchor for anchor in self.protocol.anchors} | set(late)

    def remember(self, number: int, reference: Reference) -> None:
        """Keep frame `number`, with features from `prepare`, and drop the frames that will not be
        copied from again."""
        given = bool(reference.given_bk.any())
        if self.protocol.appearance:
            self.learn_appearance(reference, given=given)
        if self.first is None:
            self.first = number
        elif given:
            self.entries = [*self.entries, number][-LATE_REFERENCES:]
        self.kept[number] = reference
        oldest = number + 1 - max(self.protocol.recent, default=0)
        anchors = self.anchors()
        self.kept = {
            frame: kept for frame, kept in self.kept.items() if frame >= oldest or frame in anchors
        }

    def learn_appearance(self, reference: Reference, *, given: bool) -> None:
        """Learn from a frame what its labels look like; `given`: some labels were given in it."""
        features_bchw, values_bkhw, _ = reference
        if self.appearance is None:
            labels = values_bkhw.shape[1]
            self.appearance = AppearanceModel(features_bchw, labels, self.model.stride)
        self.appearance.learn(features_bchw, values_bkhw, given=given)

    def backfill_labels(self, number: int, *, exclusive: bool) -> None:
        """Propagate the labels that were given in frame `number` back to the other references.

        The other references still have background or another label there, and would outvote the
        frame in which the labels were given.

        Args:
            number: of a frame that was remembered.
            exclusive: whether labels compete for each cell, so that more of one is less of others.
        """
        source = self.kept[number]
        for frame, reference in self.kept.items():
            changed_bk11 = (source.given_bk & ~reference.given_bk)[:, :, None, None]
            if frame == number or not changed_bk11.any():
                continue
            given_bkhw = self.attend(reference.features_bchw, [source]) * changed_bk11
            old_bkhw = reference.values_bkhw
            merged_bkhw = (
                merge_given_labels(old_bkhw, given_bkhw, changed_bk11)
                if exclusive
                else torch.where(changed_bk11, given_bkhw, old_bkhw)
            )
            self.kept[frame] = reference._replace(values_bkhw=merged_bkhw)

    def select(self, rows: list[int]) -> None:
        """Keep only these rows of the batch; the other videos have ended."""
        self.kept = {
            frame: Reference(*(side[rows] for side in reference))
            for frame, reference in self.kept.items()
        }
        self.whitening = self.whitening and Whitening(*(side[rows] for side in self.whitening))
        if self.appearance:
            self.appearance.select(rows)


def coarser(x_bchw: Tensor) -> Tensor:
    """Average over blocks of 2x2 cells."""
    return F.avg_pool2d(x_bchw, 2, ceil_mode=True, count_include_pad=False)
