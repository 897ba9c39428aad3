"""Distillation: a small encoder (student) learns the features of a trained one (teacher), instead
of learning to copy colours.

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

FLOOR = 0.2  # as in the protocol `memory`, so that the loss compares features as tracking does


class DistillationLoss(nn.Module):
    """The whole forward pass of a training step, so that DDP wraps a single call; it is called like
    `CorrespondenceLoss`."""

    def __init__(
        self,
        model: CorrFlow,
        teacher: str,
        device: torch.device,
        precision: Precision = "float32",
    ) -> None:
        """Load the teacher.

        Args:
            model: the student.
            teacher: the model whose features it learns: a name or path for `load_model`.
            device: where both compute.
            precision: of the teacher's convolutions; the caller decides that of the student's.

        Raises:
            InputError: as `load_model`; a teacher with another input colour space, another number
                of channels, or a stride that does not divide the student's.
        """
        super().__init__()
        self.model = model
        trained = load_model(teacher, device).requires_grad_(False)
        self.ratio = check_teacher(model, trained)
        # a bound method, so that the teacher is not a submodule: its weights must not be saved, nor
        # its gradients reduced
        self.encode_by_teacher = trained.accelerate(precision).encode_input

    def forward(
        self,
        frames_bt3hw: Tensor,
        colors_btkhw: Tensor,
        classes_btmhw: Tensor,
        teacher_forced: tuple[bool, ...],
    ) -> Losses:
        """Compute the loss of a batch of clips `[B, T, 3, H, W]`, augmented and in the input's
        colour space; colours and classes are ignored."""
        frames_n3hw = frames_bt3hw.flatten(0, 1)
        with torch.no_grad():
            taught_nchw = self.teach(frames_n3hw)
            whitening_cc = whitening_matrix(taught_nchw)
        missed_nchw = self.model.encode_input(frames_n3hw).float() - taught_nchw
        with torch.autocast(missed_nchw.device.type, enabled=False):  # in float32
            loss = torch.einsum("dc,nchw->ndhw", whitening_cc, missed_nchw).square().mean()
        return Losses(loss, {DISTILLATION: loss})

    def teach(self, frames_n3hw: Tensor) -> Tensor:
        """The student's target: the teacher's features, averaged to the student's cells."""
        # the teacher has its own precision, and Winograd convolution needs float32
        with torch.autocast(frames_n3hw.device.type, enabled=False):
            features_nchw = self.encode_by_teacher(frames_n3hw)
        height, width = features_nchw.shape[-2:]
        return overlapping_means(features_nchw, (height // self.ratio, width // self.ratio))


def check_teacher(student: CorrFlow, teacher: CorrFlow) -> int:
    """The number of the teacher's cells along the side of one of the student's; InputError if their
    features can't be compared."""
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
    """The matrix `[C, C]` that whitens features `[N, C, h, w]`, as the protocol `memory` does."""
    cells_cp = features_nchw.transpose(0, 1).flatten(1).double()
    centred_cp = cells_cp - cells_cp.mean(dim=1, keepdim=True)
    covariance_cc = centred_cp @ centred_cp.mT / (cells_cp.shape[1] - 1)  # torch.cov won't compile
    return inverse_sqrt(covariance_cc, FLOOR).to(features_nchw.dtype)
