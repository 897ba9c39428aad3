"""The guided filter equals its definition and moves the edges of masks to those of the frame."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import corrflow
from corrflow.propagation import find_protocol
from corrflow.propagation.guided_filter import NOISE, guided_filter, move_edges
from tests.corrflow.test_protocols import SHARP, SIDE, scene


def shares_of(mask_hw):
    """Shares of the background and of one label."""
    return torch.stack([1 - mask_hw, mask_hw])


def fitted_by_definition(share_hw, frame_3hw, radius):
    """Fit the share in the window of each pixel by ridge regression on the colours, and average the
    fits of all windows that contain a pixel."""
    height, width = share_hw.shape
    sums, counts = np.zeros((height, width)), np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            window = (
                slice(max(0, row - radius), row + radius + 1),
                slice(max(0, column - radius), column + radius + 1),
            )
            colors = frame_3hw[:, *window].reshape(3, -1)
            share = share_hw[window].reshape(-1)
            centred = colors - colors.mean(axis=1, keepdims=True)
            covariance = centred @ centred.T / len(share) + NOISE * np.eye(3)
            slopes = np.linalg.solve(covariance, centred @ (share - share.mean()) / len(share))
            fitted = share.mean() + slopes @ centred
            sums[window] += fitted.reshape(sums[window].shape)
            counts[window] += 1
    return sums / counts


@pytest.mark.parametrize("radius", [1, 3])
def test_the_filter_equals_its_definition(radius):
    draw = torch.Generator().manual_seed(0)
    frame_3hw = torch.rand(3, 9, 13, generator=draw, dtype=torch.float64)
    share_hw = torch.rand(9, 13, generator=draw, dtype=torch.float64)
    filtered_khw = guided_filter(shares_of(share_hw), frame_3hw, radius)
    expected_hw = fitted_by_definition(share_hw.numpy(), frame_3hw.numpy(), radius)
    assert np.abs(filtered_khw[1].numpy() - expected_hw).max() < 1e-10
    assert (filtered_khw.sum(dim=0) - 1).abs().max() < 1e-12


def test_a_video_without_objects_stays_without_objects():
    frames, masks = scene([(4, 40)] * 3)
    assert not corrflow.propagate(SHARP, frames, torch.zeros_like(masks[0]), "memory").any()


def test_labels_are_filtered_independently():
    draw = torch.Generator().manual_seed(1)
    frame_3hw, shares_khw = torch.rand(3, 37, 50, generator=draw), torch.rand(4, 37, 50)
    shares_khw = shares_khw / shares_khw.sum(dim=0)
    together_khw = guided_filter(shares_khw, frame_3hw, 16)
    for label in range(1, 4):
        alone_khw = guided_filter(shares_of(shares_khw[label]), frame_3hw, 16)
        assert (together_khw[label] - alone_khw[1]).abs().max() < 1e-5


@pytest.mark.parametrize("edge", range(28, 37))
def test_the_edge_of_a_mask_moves_to_an_edge_in_the_frame(edge):
    """The mask's edge is at column 32; the frame's is up to half a cell of 8 pixels away."""
    draw = torch.Generator().manual_seed(edge)
    frame_3hw = torch.full((3, 48, 64), 0.3)
    frame_3hw[:, :, edge:] = 0.7
    frame_3hw = frame_3hw + 0.01 * torch.randn(frame_3hw.shape, generator=draw)
    cells = torch.zeros(1, 1, 6, 8)
    cells[..., 4:] = 1
    mask_hw = F.interpolate(cells, scale_factor=8, mode="bilinear")[0, 0]
    object_hw = guided_filter(shares_of(mask_hw), frame_3hw, 16).argmax(dim=0)
    expected_hw = (torch.arange(64) >= edge).expand(48, 64)
    assert (object_hw.bool() != expected_hw).float().mean() < 0.01


def test_an_edge_stays_where_the_frame_has_uniform_colour():
    mask_hw = (torch.arange(64) >= 29).float().expand(48, 64)
    filtered_khw = guided_filter(shares_of(mask_hw), torch.full((3, 48, 64), 0.5), 16)
    off = (filtered_khw.argmax(dim=0) != mask_hw).any(dim=0).nonzero().flatten()
    assert all(abs(int(column) - 29) <= 1 for column in off)


@pytest.mark.parametrize("side", [6, 10, 14])
def test_a_small_object_without_a_distinct_colour_is_kept(side):
    mask_hw = torch.zeros(96, 128)
    mask_hw[40 : 40 + side, 50 : 50 + side] = 1
    shares_khw, frame_3hw = shares_of(mask_hw), torch.full((3, 96, 128), 0.5)
    assert not guided_filter(shares_khw, frame_3hw, 16).argmax(dim=0).any()
    assert torch.equal(move_edges(shares_khw, frame_3hw, 16).argmax(dim=0), mask_hw.long())


def test_a_label_that_is_kept_unfiltered_leaves_the_others_filtered():
    """The mask of a large square of distinct colour is half a cell off; a small square has no
    distinct colour."""
    frame_3hw = torch.full((3, 96, 128), 0.3)
    frame_3hw[0, 20:60, 20:60] = 0.8
    shares_khw = torch.zeros(3, 96, 128)
    shares_khw[1, 24:64, 24:64] = 1
    shares_khw[2, 70:76, 100:106] = 1
    shares_khw[0] = 1 - shares_khw.sum(dim=0)
    labels_hw = move_edges(shares_khw, frame_3hw, 16).argmax(dim=0)
    assert torch.equal(labels_hw == 2, shares_khw[2].bool())
    assert ((labels_hw == 1) != (frame_3hw[0] > 0.5)).float().mean() < 0.002


def test_tracked_masks_follow_the_edges_of_the_frame():
    """The squares move by less than a cell in each frame, so that their edges lie within cells."""
    frames, masks = scene([(4 + 3 * t, 40 - 3 * t) for t in range(8)])
    wrong = {}
    for radius in (0, 8):
        protocol = replace(find_protocol("memory"), guided_filter=radius, short_side=0)
        tracked = corrflow.propagate(SHARP, frames, masks[0], protocol)
        wrong[radius] = int((tracked != masks).sum())
    assert wrong[8] < wrong[0] / 2
    assert wrong[8] < 0.02 * 2 * SIDE**2 * len(frames)


def test_byte_and_float_frames_give_the_same_masks():
    frames, masks = scene([(4 + 3 * t, 40) for t in range(4)])
    from_floats = corrflow.propagate(SHARP, frames, masks[0], "memory")
    from_bytes = corrflow.propagate(SHARP, (255 * frames).byte(), masks[0], "memory")
    assert torch.equal(from_floats, from_bytes)


def test_distances_are_reduced_in_proportion_for_small_frames():
    memory = find_protocol("memory")
    half = memory.for_frames((240, 426))
    assert (half.radius, half.guided_filter) == (memory.radius / 2, memory.guided_filter / 2)
    assert half.for_frames((120, 213)) == half
    for size in ((480, 854), (854, 480), (1080, 1920)):
        assert memory.for_frames(size) == memory
    assert find_protocol("paper").for_frames((120, 213)) == find_protocol("paper")


def test_small_frames_are_tracked_with_reduced_distances():
    frames, masks = scene([(4 + 3 * t, 40 - 3 * t) for t in range(4)])
    memory = find_protocol("memory")
    small = memory.for_frames(frames.shape[-2:])
    assert small.radius < memory.radius
    tracked = corrflow.propagate(SHARP, frames, masks[0], memory)
    assert torch.equal(tracked, corrflow.propagate(SHARP, frames, masks[0], small))
