"""Data sets of a few tiny videos, each in the exact layout of the real one, with a ground truth
that can be computed by hand.

The background is static noise, and the objects are squares of one colour that move by whole pixels.
"""

import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from corrflow.pictures import write_mask

HEIGHT, WIDTH = 48, 64
COLORS = ((0, 0, 0), (220, 40, 40), (40, 200, 60), (60, 60, 230), (230, 220, 50))


def draw(labels_hw):
    """Draw an image of labels."""
    noise = np.random.default_rng(0).integers(60, 140, (*labels_hw.shape, 3))
    colors = np.array(COLORS)[labels_hw % len(COLORS)]
    return np.where((labels_hw > 0)[..., None], colors, noise).astype(np.uint8)


def squares(*places, height=HEIGHT, width=WIDTH):
    """Labels with a square for each (label, left, top, side)."""
    labels_hw = np.zeros((height, width), np.uint8)
    for label, left, top, side in places:
        labels_hw[top : top + side, left : left + side] = label
    return labels_hw


def save(path, labels_hw):
    """Save an image of labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(labels_hw)).save(path, quality=95)


def youtube_vos(root, truth=True):
    """A split with a video of five frames, which has a second object from the third frame on, and a
    video of one frame. With `truth`, all frames are annotated.

    Object 1 (a dog: seen) is 12 pixels wide and moves by 2 pixels per frame; object 2 (a guitar:
    unseen) does not move.
    """
    places = [(1, 10 + 2 * t, 8, 12) for t in range(5)]
    labels = [
        squares(place, *([(2, 40, 30, 10)] if t >= 2 else [])) for t, place in enumerate(places)
    ]
    for t, labels_hw in enumerate(labels):
        save(root / f"JPEGImages/0a1b2c3d4e/{5 * t:05d}.jpg", labels_hw)
        if truth or t == 0:
            write_mask(root / f"Annotations/0a1b2c3d4e/{5 * t:05d}.png", labels_hw)
    if not truth:  # the validation split marks only the new object
        write_mask(
            root / "Annotations/0a1b2c3d4e/00010.png",
            np.where(labels[2] == 2, 2, 0).astype(np.uint8),
        )
    save(root / "JPEGImages/ff00ff00ff/00000.jpg", labels[0])
    write_mask(root / "Annotations/ff00ff00ff/00000.png", labels[0])
    names = [f"{5 * t:05d}" for t in range(5)]
    objects = {
        "1": {"category": "dog", "frames": names},
        "2": {"category": "guitar", "frames": names[2:]},
    }
    alone = {"1": {"category": "dog", "frames": names[:1]}}
    (root / "meta.json").write_text(
        json.dumps(
            {"videos": {"0a1b2c3d4e": {"objects": objects}, "ff00ff00ff": {"objects": alone}}}
        )
    )
    return labels


def davis_test(root):
    """A test-dev tree: sequences of four frames and of one frame, with only the first masks."""
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/test-dev.txt").write_text("aerobatics\nchamaleon\n")
    for name, length in (("aerobatics", 4), ("chamaleon", 1)):
        for t in range(length):
            save(
                root / f"JPEGImages/480p/{name}/{t:05d}.jpg",
                squares((1, 10 + 2 * t, 8, 12), (2, 40, 30, 10)),
            )
        write_mask(
            root / f"Annotations/480p/{name}/00000.png", squares((1, 10, 8, 12), (2, 40, 30, 10))
        )


def jhmdb(root):
    """A class of two videos, one of which is for testing: four frames, and a fifth without joints.

    The joints are in a box of 30 x 40 pixels, whose diagonal is 50, and all move right by 2.5
    pixels per frame; the last joint is outside the first frame.
    """
    (root / "splits").mkdir(parents=True)
    (root / "splits/wave_test_split1.txt").write_text(
        "train_me.avi 1 \nApril_09_wave_u_nm_np1_ba_goo_0.avi 2 \nleft_out.avi 0 \n"
    )
    (root / "splits/wave_test_split2.txt").write_text("other.avi 2 \n")
    video = root / "Rename_Images/wave/April_09_wave_u_nm_np1_ba_goo_0"
    for t in range(5):
        save(video / f"{t + 1:05d}.png", squares((1, 10 + 2 * t, 4, 30)))
    (video / ".DS_Store").write_bytes(b"of another system")
    first = np.array([(5, 3), (35, 43), *[(10 + k, 20) for k in range(12)], (-4, 10)], float)
    joints_tk2 = np.stack([first + np.array((2.5 * t, 0)) for t in range(4)])
    path = root / "joint_positions/wave/April_09_wave_u_nm_np1_ba_goo_0/joint_positions.mat"
    path.parent.mkdir(parents=True)
    savemat(
        path,
        {
            "pos_img": joints_tk2.transpose(2, 1, 0) + 1,
            "pos_world": joints_tk2.transpose(2, 1, 0),
            "viewpoint": "S",
        },
    )
    return joints_tk2


def vip(root):
    """VIP_Fine with one video of three frames: hair (2) of two people, and upper clothes (5) of one
    of them, who moves by 4 pixels per frame."""
    base = root / "VIP_Fine"
    (base / "lists").mkdir(parents=True)
    (base / "lists/val_videos.txt").write_text("videos10\n")
    for t in range(3):
        name = f"videos10/{25 * t + 1:012d}"
        save(
            base / f"Images/{name}.jpg",
            squares((2, 10 + 4 * t, 4, 8), (2, 44, 4, 8), (4, 10 + 4 * t, 12, 16)),
        )
        write_mask(
            base / f"Annotations/Category_ids/{name}.png",
            squares((2, 10 + 4 * t, 4, 8), (2, 44, 4, 8), (5, 10 + 4 * t, 12, 16)),
        )
        write_mask(
            base / f"Annotations/Instance_ids/{name}.png",
            squares((1, 10 + 4 * t, 4, 8), (3, 44, 4, 8), (2, 10 + 4 * t, 12, 16)),
        )
        (base / f"Annotations/Instance_ids/{name}.txt").write_text("1 2 1\n2 5 1\n3 2 2\n")


def badja(root):
    """A horse of DAVIS, seven frames of 256 x 160, labelled in the third, fifth and seventh; and an
    animal whose frames are not distributed.

    The horse's segmentation has 50 x 50 pixels, or 100 x 100 after resizing to 512 x 320, so 0.2 of
    the square root of its area is 20. It moves by 3 pixels per frame, which are 6 after resizing.
    Two joints are visible in the first labelled frame, one of which is hidden in the last; a third
    appears later; a fourth is above the image.
    """
    labels = []
    for t in range(7):
        labels_hw = squares((1, 20 + 3 * t, 30, 50), height=160, width=256)
        save(root / f"DAVIS/JPEGImages/Full-Resolution/horse/{t:05d}.jpg", labels_hw)
        write_mask(root / f"DAVIS/Annotations/Full-Resolution/horse/{t:05d}.png", labels_hw)
        joints, visible = [[0, 0]] * 37, [False] * 37
        for joint, (y, x), seen in (
            (8, (40, 30), True),
            (15, (60, 50), t < 6),
            (33, (50, 60), t >= 4),
            (8 + 2, (-9, 60), True),
        ):
            joints[joint], visible[joint] = [y, x + 3 * t], seen
        image, segmentation = (
            f"DAVIS/{kind}/Full-Resolution/horse/{t:05d}" for kind in ("JPEGImages", "Annotations")
        )
        label = {
            "segmentation_path": f"{segmentation}.png",
            "image_path": f"{image}.jpg",
            "visibility": visible,
            "joints": joints,
        }
        labels += [label] if t in (2, 4, 6) else []
    (root / "joint_annotations").mkdir()
    (root / "joint_annotations/horse.json").write_text(json.dumps(labels))
    tiger = [
        {
            **label,
            "image_path": "extra_videos/tiger/rgb/0007.png",
            "segmentation_path": "extra_videos/tiger/0007.png",
        }
        for label in labels
    ]
    (root / "joint_annotations/tiger.json").write_text(json.dumps(tiger))


def tapvid(path):
    """The pickle with two videos: one of five frames of 40 x 64, and one of a single frame.

    In pixels at 256 x 256, from the corner: point 0 stays at (64, 64) and is hidden in the last
    frame; point 1 begins at (100, 100) and moves right by 3 pixels per frame; point 2 is first
    visible in the third frame, at (30, 200), and does not move; point 3 is never visible.
    """
    points = np.zeros((4, 5, 2))
    points[0], points[2] = (64, 64), (30, 200)
    points[1] = [(100 + 3 * t, 100) for t in range(5)]
    occluded = np.zeros((4, 5), bool)
    occluded[0, 4] = occluded[2, :2] = occluded[3] = True
    video = np.stack([draw(squares((1, 16 + t, 10, 8), height=40)) for t in range(5)])
    about = {"video": video, "points": (points / 256).astype(np.float32), "occluded": occluded}
    alone = {key: value[:1] if key == "video" else value[:2, :1] for key, value in about.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"goat": about, "still": alone}))
    return Path(path)
