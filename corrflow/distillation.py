"""Distillation: a small encoder learns the features of a trained one, instead of colours.

Shapes: b clips, t frames of a clip, n frames of all clips, c channels, h w cells of the student's
encoder, H W pixels.
"""

import torch
from torch import Tensor, nn

from corrflow.device import Precision
from corrflow.errors import InputError
from corrflow.loss import DISTILLATION, Losses
from corrflow.model import CorrFlow, overlapping_means
from corrflow.pretrained import load_model
from corrflow.whitening import inverse_sqrt

FLOOR = 0.2  # of the protocol `memory`: what is compared there is to be learnt


class DistillationLoss(nn.Module):
    """One training step's forward pass, whole, so that DDP wraps a single call; as
    `CorrespondenceLoss` is called."""

    def __init__(
        self,
        model: CorrFlow,
        teacher: str,
        device: torch.device,
        precision: Precision = "float32",
    ) -> None:
        """Take up a teacher.

        Args:
            model: the student.
            teacher: whose features it learns, as `load_model` takes it.
            device: where both compute.
            precision: of the teacher's convolutions; the student's is decided by whoever calls.

        Raises:
            InputError: as `load_model`; a teacher of another input or other channels, or whose
                cells do not divide the student's.
        """
        super().__init__()
        self.model = model
        trained = load_model(teacher, device).requires_grad_(False)
        self.ratio = check_teacher(model, trained)
        # no part of the module, whose weights are saved and reduced
        self.encode_by_teacher = trained.accelerate(precision).encode_input

    def forward(
        self,
        frames_bt3hw: Tensor,
        colors_btkhw: Tensor,
        classes_btmhw: Tensor,
        teacher_forced: tuple[bool, ...],
    ) -> Losses:
        """The losses of a batch of clips: of its frames `[B, T, 3, H, W]`, augmented, in the
        input's colour space; colours are not looked at."""
        frames_n3hw = frames_bt3hw.flatten(0, 1)
        with torch.no_grad():
            taught_nchw = self.teach(frames_n3hw)
            whitening_cc = whitening_matrix(taught_nchw)
        missed_nchw = self.model.encode_input(frames_n3hw).float() - taught_nchw
        with torch.autocast(missed_nchw.device.type, enabled=False):  # in single precision
            loss = torch.einsum("dc,nchw->ndhw", whitening_cc, missed_nchw).square().mean()
        return Losses(loss, {DISTILLATION: loss})

    def teach(self, frames_n3hw: Tensor) -> Tensor:
        """What the student is to find: the teacher's features, averaged to the student's cells."""
        # its precision is its own: Winograd convolution is for float32
        with torch.autocast(frames_n3hw.device.type, enabled=False):
            features_nchw = self.encode_by_teacher(frames_n3hw)
        height, width = features_nchw.shape[-2:]
        return overlapping_means(features_nchw, (height // self.ratio, width // self.ratio))


def check_teacher(student: CorrFlow, teacher: CorrFlow) -> int:
    """Cells of the teacher along a side of the student's; InputError if they can't be compared."""
    ratio, rest = divmod(student.stride, teacher.stride)
    wanted = student.config.input, student.encoder.channels
    actual = teacher.config.input, teacher.encoder.channels
    if actual != wanted or rest:
        raise InputError(
            f"loss.teacher: input {actual[0]}, {actual[1]} channels at stride {teacher.stride}: "
            f"expected {wanted[0]}, {wanted[1]} channels at a stride that divides {student.stride}"
        )
    return ratio


def whitening_matrix(features_nchw: Tensor) -> Tensor:
    """What whitens features `[N, C, h, w]`, as the protocol `memory` does; `[C, C]`."""
    cells_cp = features_nchw.transpose(0, 1).flatten(1).double()
    centred_cp = cells_cp - cells_cp.mean(dim=1, keepdim=True)
    covariance_cc = centred_cp @ centred_cp.mT / (cells_cp.shape[1] - 1)  # torch.cov isn't compiled
    return inverse_sqrt(covariance_cc, FLOOR).to(features_nchw.dtype)
