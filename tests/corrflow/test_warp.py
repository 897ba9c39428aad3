"""Warped views: that a cell's place is where its pixels come from, and that the loss is lowest where it is found."""

import math

import pytest
import torch
import torch.nn.functional as F

from corrflow import InputError, restricted_attention
from corrflow.warp import Views, WarpConfig, affine, make_views, place_codes, place_loss, tinted

PLAIN = WarpConfig(weight=1.0, degrees=0, zoom=1, shift=0, tint=0)
STRONG = WarpConfig(weight=1.0, degrees=40, zoom=1.5, shift=10, tint=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(count=3, height=48, width=64):
    """Frames that change slowly, so that a cell is about its middle pixel."""
    noise = torch.rand(count, 3, height // 16, width // 16, generator=generator())
    return F.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)


def own_places(height, width):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows], dim=-1).float()


def test_an_unchanged_view_is_its_frame_and_its_cells_are_where_they_are():
    frames = smooth()
    views, places = make_views(frames, PLAIN, generator(), slice(0, 3), 3)
    torch.testing.assert_close(views, frames, atol=1e-5, rtol=0)
    torch.testing.assert_close(places, own_places(12, 16).expand(3, -1, -1, -1), atol=1e-4, rtol=0)


def test_each_cell_shows_what_is_at_its_place():
    frames = smooth()
    views, places = make_views(frames, STRONG, generator(3), slice(0, 3), 3)
    pixels = places * 4 + 1.5  # the middle of a cell, in pixels
    grid = (pixels * 2 + 1) / torch.tensor([64.0, 48.0]) - 1
    there = F.grid_sample(frames, grid, align_corners=False)
    inside = ((grid > -0.9) & (grid < 0.9)).all(dim=-1)
    difference = (F.avg_pool2d(views, 4) - there).abs().amax(dim=1)[inside]
    assert 0.3 < inside.float().mean() < 1
    assert difference.max() < 0.03
    assert (F.avg_pool2d(views, 4) - F.avg_pool2d(frames, 4)).abs().amax(dim=1)[inside].mean() > 0.05


def test_a_turn_is_one_of_pixels_in_frames_that_are_not_square():
    theta = affine(torch.tensor([[1.0, 0, 0, 0, 0, 0]]), WarpConfig(degrees=90, zoom=1), 48, 64)
    middle_right = torch.tensor([10 / 32, 0.0, 1.0])  # ten pixels to the right of the middle
    x, y = (theta[0] @ middle_right * torch.tensor([32, 24])).tolist()
    assert (x, y) == (pytest.approx(0, abs=1e-5), pytest.approx(10))
    moved = affine(torch.tensor([[0, 0, 0, 1.0, -0.5, 0]]), WarpConfig(shift=8, zoom=1), 48, 64)[0, :, 2] * torch.tensor([32, 24])
    assert moved.tolist() == pytest.approx([8, -4])


def test_views_are_the_same_however_the_batch_is_divided():
    frames = smooth(4)
    config = WarpConfig(weight=1.0)
    whole = make_views(frames, config, generator(5), slice(0, 4), 4)
    halves = [make_views(frames[part], config, generator(5), part, 4) for part in (slice(0, 2), slice(2, 4))]
    for one, parts in zip(whole, zip(*halves, strict=True), strict=True):
        torch.testing.assert_close(one, torch.cat(parts), atol=1e-6, rtol=0)
    views = Views(1, *whole)
    assert [part.frame for part in views.parts(2)] == [1, 1]
    assert torch.equal(torch.cat([part.places_bhw2 for part in views.parts(2)]), views.places_bhw2)


def test_a_tint_changes_colours_within_bounds_and_none_changes_nothing():
    frames = smooth(2)
    torch.testing.assert_close(tinted(frames, torch.ones(2, 6), 0.0), frames)
    strong = tinted(frames, torch.tensor([[1.0, 1, -1, 1, 1, 0], [-1, 0, 0, 0, -1, 0]]), 0.5)
    assert strong.min() >= 0
    assert strong.max() <= 1
    assert (strong - frames).abs().mean() > 0.05


@pytest.mark.parametrize("radius", [1, 3])
def test_no_two_cells_of_a_window_have_the_same_code(radius):
    side = 2 * radius + 1
    codes = place_codes(1, 9, 11, side, torch.device("cpu"))[0]
    assert torch.equal(codes.sum(dim=0), torch.ones(9, 11))
    for top in range(9 - side + 1):
        for left in range(11 - side + 1):
            window = codes[:, top : top + side, left : left + side].argmax(dim=0)
            assert len(window.unique()) == side * side


def copied_from(places, radius):
    """Codes as a perfect model copies them: all from the nearest cell of each place."""
    codes = place_codes(1, *places.shape[1:3], 2 * radius + 1, places.device)
    x, y = places.round().long()[0].unbind(dim=-1)
    return codes[:, :, y.clamp(0, places.shape[1] - 1), x.clamp(0, places.shape[2] - 1)]


def test_who_finds_every_cell_has_no_loss_and_the_beyond_is_not_asked_for():
    places = own_places(8, 10)[None] + torch.tensor([2.0, -1.0])
    assert place_loss(copied_from(places, 2), places, 2) == pytest.approx(0, abs=1e-5)
    beyond = own_places(8, 10)[None] + torch.tensor([3.0, 0.0])
    assert place_loss(copied_from(beyond, 2), beyond, 2) == 0
    assert place_loss(copied_from(places, 2), places + torch.tensor([-1.0, 0.0]), 2) > 10


def test_the_loss_is_the_cross_entropy_worked_by_hand():
    places = own_places(8, 10)[None] + torch.tensor([0.25, 0.5])
    uniform = torch.full((1, 25, 8, 10), 1 / 25)
    found = 7 * 9 / 80  # the last row and the last column are beyond the frame
    assert place_loss(uniform, places, 2) == pytest.approx(math.log(25) * found, rel=1e-5)
    exact = sum(
        share * copied_from(own_places(8, 10)[None] + torch.tensor([dx, dy]), 2)
        for dx, dy, share in ((0.0, 0.0, 0.375), (1.0, 0.0, 0.125), (0.0, 1.0, 0.375), (1.0, 1.0, 0.125))
    )
    entropy = -sum(share * math.log(share) for share in (0.375, 0.125, 0.375, 0.125))
    assert place_loss(exact, places, 2) == pytest.approx(entropy * found, rel=1e-4)


def test_features_learn_to_find_the_cells_even_where_they_are_sure_of_others():
    """Gradients reach features that match the wrong cell a billion times better than the right one."""
    torch.manual_seed(0)
    places = own_places(6, 6)[None] + torch.tensor([1.0, 0.0])
    target = F.one_hot(torch.arange(36), 36).T.reshape(1, 36, 6, 6).float() * 25  # each cell is sure of itself
    reference = F.one_hot(torch.arange(36), 36).T.reshape(1, 36, 6, 6).float().requires_grad_()
    optimizer = torch.optim.Adam([reference], lr=0.1)
    losses = []
    for _ in range(60):
        loss = place_loss(restricted_attention(target, reference, place_codes(1, 6, 6, 3, target.device), 1), places, 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 15
    assert losses[-1] < 0.5


@pytest.mark.parametrize("change", [{"weight": -1}, {"zoom": 0.5}, {"tint": 1.0}, {"degrees": -3}])
def test_refuses_warps_that_make_no_sense(change):
    with pytest.raises(InputError, match="warp: "):
        WarpConfig(**change)
