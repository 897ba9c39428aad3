import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

from shards.errors import DataError
from shards.synthetic import SceneConfig, make_layers, render

SCENE = SceneConfig(frames=6, height=64, width=96, noise=0.0)


def test_the_same_seed_gives_the_same_video_and_others_do_not():
    first, again, other = render(SCENE, 3), render(SCENE, 3), render(SCENE, 4)
    assert np.array_equal(first.frames_thw3, again.frames_thw3)
    assert np.array_equal(first.points_nt2, again.points_nt2)
    assert not np.array_equal(first.frames_thw3, other.frames_thw3)


def test_to_pixel_is_the_inverse_of_to_texture():
    for layer in make_layers(SCENE, np.random.default_rng(0)):
        pixels = np.random.default_rng(1).uniform(0, 60, (20, 2))
        np.testing.assert_allclose(
            layer.motion.to_pixel(layer.motion.to_texture(pixels, 4.0), 4.0), pixels, atol=1e-6
        )


def test_visible_points_lie_on_their_object_and_hidden_ones_do_not():
    video = render(SCENE, 5)
    for n, label in enumerate(video.point_object_n):
        for t in range(SCENE.frames):
            x, y = video.points_nt2[n, t].round().astype(int)
            inside = 0 <= x < SCENE.width and 0 <= y < SCENE.height
            on_top = inside and video.labels_thw[t, y, x] == label
            assert on_top == video.visible_nt[n, t]
    assert video.visible_nt[:, 0].all()


def test_some_points_are_hidden_and_light_and_noise_change_a_still_scene():
    videos = [
        render(SceneConfig(frames=12, height=64, width=96, objects=(3, 4)), seed)
        for seed in range(3)
    ]
    assert any(not video.visible_nt.all() for video in videos)
    still = SceneConfig(frames=8, height=64, width=96, speed=0.0, noise=0.0)
    brightness = render(still, 1).frames_thw3.mean(axis=(1, 2, 3))
    assert np.ptp(brightness) > 5
    rough, smooth = (
        render(SceneConfig(frames=1, height=64, width=96, noise=n), 2).frames_thw3.astype(float)
        for n in (0.1, 0.0)
    )
    assert 10 < (rough - smooth).std() < 40


def test_tracked_points_keep_their_colour_better_than_fixed_pixels():
    along, fixed = [], []
    for seed in range(6):
        video = render(SCENE, seed)
        frames = video.frames_thw3.astype(float).mean(axis=-1)
        frames = frames / frames.mean(axis=(1, 2), keepdims=True)  # the light's brightness changes

        def at(t, points, frames=frames):
            return map_coordinates(frames[t], (points[:, 1], points[:, 0]), order=1, mode="nearest")

        visible = video.visible_nt.all(axis=1) & (video.point_object_n > 0)
        first = at(0, video.points_nt2[visible, 0])
        along.append(np.abs(at(3, video.points_nt2[visible, 3]) - first).mean())
        fixed.append(np.abs(at(3, video.points_nt2[visible, 0]) - first).mean())
    assert np.mean(along) < 0.6 * np.mean(fixed)


def test_the_generated_tree_has_the_layout_of_davis(tree):
    names = (tree / "ImageSets/2017/val.txt").read_text().split()
    assert names == ["val-000", "val-001", "val-002", "val-003"]
    for name in names:
        frames, masks = (
            sorted((tree / kind / "480p" / name).iterdir())
            for kind in ("JPEGImages", "Annotations")
        )
        assert [p.stem for p in frames] == [p.stem for p in masks] == [f"{t:05d}" for t in range(8)]
        with Image.open(masks[0]) as mask:
            assert mask.mode == "P"
            assert np.asarray(mask).max() >= 1
        assert np.load(tree / "Tracks/480p" / f"{name}.npz")["points"].shape[1:] == (8, 2)


@pytest.mark.parametrize(
    "change", [{"frames": 0}, {"height": 8}, {"objects": (3, 2)}, {"objects": (0, 0)}]
)
def test_invalid_scene_settings_are_refused(change):
    with pytest.raises(DataError, match="scene"):
        SceneConfig(**change)
