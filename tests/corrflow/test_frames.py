"""The checks of the frames that callers pass."""

import pytest
import torch
import torch.nn.functional as F

from corrflow import InputError, load_model, propagate
from corrflow.adaptation import sample_clips
from corrflow.frames import check_frame

BYTES = torch.randint(0, 256, (4, 3, 32, 40), dtype=torch.uint8)
MASK = torch.ones(32, 40, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (BYTES[0].float(), "has values from .* to 2[0-9]+: expected uint8, or floating in"),
        (BYTES[0] / 127.5 - 1, "has values from -[01].* to [01].*: expected uint8, or floating in"),
        (torch.full((3, 4, 4), float("nan")), "has values from nan to nan"),
        (BYTES[0].int(), "is torch.int32: expected uint8"),
    ],
    ids=["bytes as floats", "from -1 to 1", "no numbers", "integers"],
)
def test_frames_with_unexpected_values_are_refused(frame, words):
    with pytest.raises(InputError, match=f"frame 7 {words}"):
        check_frame(frame, "frame 7")


def test_a_resized_frame_may_be_slightly_out_of_range():
    sharp = torch.randint(0, 2, (1, 3, 40, 40), generator=torch.Generator().manual_seed(0)).float()
    frame = F.interpolate(sharp, scale_factor=2, mode="bicubic")
    assert frame.min() < -0.2 and frame.max() > 1.2
    assert check_frame(frame, "frame 0") is frame


def test_every_entry_point_refuses_bytes_as_floats():
    model = load_model("fast")
    with pytest.raises(InputError, match="frame 0 has values"):
        propagate(model, BYTES.float(), MASK)
    with pytest.raises(InputError, match="encode: frames has values"):
        model.encode(BYTES.float())
    with pytest.raises(InputError, match="adapt: frame 0 has values"):
        sample_clips(BYTES.float(), 1, 8, seed=0)


def test_bytes_and_floats_of_any_precision_track_alike():
    model = load_model("fast")
    expected = propagate(model, BYTES, MASK)
    assert torch.equal(propagate(model, BYTES.float() / 255, MASK), expected)
    assert torch.equal(propagate(model, BYTES.double() / 255, MASK), expected)
    assert torch.equal(propagate(model, BYTES.numpy() / 255, MASK), expected)
    assert propagate(model, BYTES.half() / 255, MASK).shape == expected.shape
    assert propagate(model.double(), BYTES, MASK).shape == expected.shape


def test_byte_and_float_videos_give_the_same_adaptation_clips():
    clips = sample_clips(BYTES, 3, 8, seed=0)
    assert clips.float().mean() > 1
    assert torch.equal(sample_clips(BYTES.float() / 255, 3, 8, seed=0), clips)


def test_adaptation_refuses_frames_of_different_sizes():
    with pytest.raises(InputError, match=r"adapt: frame 1 is \[3, 30, 40\]: expected \[3, H, W\]"):
        sample_clips([BYTES[0], BYTES[0, :, :30]], 1, 8, seed=0)
