"""Annotation files: conversion between masks and shapes, what the files of each format mean, and
that written files read back the same."""

import base64
import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import binary_dilation, gaussian_filter

from corrflow import InputError
from corrflow.annotations import (
    WRITERS,
    AnnotatedVideo,
    NamedObject,
    Shape,
    TrackedShape,
    number_objects,
    open_writer,
    paint,
    read_shapes,
)
from corrflow.annotations.polygons import (
    box_ring,
    ellipse_ring,
    fill_rings,
    outline,
    single_ring,
)
from corrflow.annotations.run_lengths import pixels_of_runs, unpack_runs
from corrflow.masks import PALETTE

WIDTH, HEIGHT = 64, 48
BOX = np.zeros((HEIGHT, WIDTH), bool)
BOX[10:30, 5:25] = True
SQUARE = [[5, 10], [25, 10], [25, 30], [5, 30]]


def blobs(seed, smooth=2.0, share=0.5):
    """A mask of several parts, some with holes."""
    values = gaussian_filter(np.random.default_rng(seed).random((HEIGHT, WIDTH)), smooth)
    return values > np.quantile(values, 1 - share)


def rings_of(parts):
    return [ring for part in parts for ring in part.rings]


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0, 3.0]), st.floats(0.02, 0.98))
def test_the_outline_of_a_mask_encloses_exactly_its_pixels(seed, smooth, share):
    mask = blobs(seed, smooth, share)
    parts = outline(mask, 0)
    assert (fill_rings(rings_of(parts), HEIGHT, WIDTH) == mask).all()
    assert (fill_rings([single_ring(parts)], HEIGHT, WIDTH) == mask).all()


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 1.0, 2.0]))
def test_a_simplified_outline_stays_within_the_tolerance(seed, tolerance):
    mask = blobs(seed, 3.0)
    parts = outline(mask, tolerance)
    changed = np.pad(fill_rings(rings_of(parts), HEIGHT, WIDTH) != mask, 1)
    # a pixel changes only if the border, which moves by at most the tolerance, crosses its centre
    padded = np.pad(mask, 1)  # the edge of the image is a border as well
    border = binary_dilation(padded, np.ones((3, 3))) & binary_dilation(~padded, np.ones((3, 3)))
    near = binary_dilation(border, iterations=int(np.ceil(tolerance)))
    assert not (changed & ~near).any()
    exact = outline(mask, 0)
    assert sum(map(len, rings_of(parts))) < sum(map(len, rings_of(exact)))
    assert [len(part.holes) for part in parts] == [len(part.holes) for part in exact]


def test_parts_smaller_than_the_tolerance_do_not_vanish():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5, 7] = mask[20:22, 30] = True
    assert (fill_rings(rings_of(outline(mask, 10)), HEIGHT, WIDTH) == mask).all()


def test_small_parts_keep_their_exact_pixels():
    ball = np.hypot(*np.mgrid[-20 : HEIGHT - 20, -30 : WIDTH - 30]) < 4
    assert ball.sum() == 45
    assert (fill_rings(rings_of(outline(ball, 1.0)), HEIGHT, WIDTH) == ball).all()


def test_a_pixel_belongs_to_the_ring_that_contains_its_centre():
    box = box_ring(5.4, 10.6, 24.5, 29.5)
    expected = np.zeros_like(BOX)
    expected[11:29, 5:24] = True
    assert (fill_rings([box], HEIGHT, WIDTH) == expected).all()
    assert (fill_rings([box_ring(5, 10, 25, 30)], HEIGHT, WIDTH) == BOX).all()
    assert (fill_rings([box_ring(5, 10, 25, 30)[::-1]], HEIGHT, WIDTH) == BOX).all()
    outside = fill_rings([box_ring(-10, -10, 100, 100)], HEIGHT, WIDTH)
    assert outside.all()
    area = fill_rings([ellipse_ring(30, 24, 20, 20)], HEIGHT, WIDTH).sum()
    assert area == pytest.approx(np.pi * 20**2, rel=0.01)


def test_a_bitmap_is_cropped_to_the_frame():
    shape = Shape(0, NamedObject("a"), bitmap=np.ones((10, 10), bool), corner=(-3, HEIGHT - 4))
    mask = shape.mask(HEIGHT, WIDTH)
    assert mask[HEIGHT - 4 :, :7].all()
    assert mask.sum() == 28


def named(frame, name, key=""):
    return Shape(frame, NamedObject(name, key), point=(1.0, 1.0))


def test_shapes_are_grouped_into_objects_by_key_or_else_by_name():
    _, objects = number_objects([named(0, "a", "1"), named(5, "a", "1"), named(0, "a", "2")], "f")
    assert objects == [NamedObject("a", "1"), NamedObject("a", "2")]
    _, objects = number_objects([named(0, "a"), named(0, "b"), named(5, "a")], "f")
    assert [owner.name for owner in objects] == ["a", "b"]
    shapes, objects = number_objects([named(0, "a"), named(0, "a"), named(0, "b")], "f")
    assert [owner.name for owner in objects] == ["a", "a", "b"]
    assert len(set(objects)) == 3
    assert [shape.object for shape in shapes] == objects


def test_ambiguous_objects_and_more_than_254_objects_are_refused():
    with pytest.raises(InputError, match=r"f: frame 5: 2 shapes 'a' without an id"):
        number_objects([named(0, "a"), named(5, "a"), named(5, "a")], "f")
    with pytest.raises(InputError, match="255 objects: expected at most 254"):
        number_objects([named(0, str(n), str(n)) for n in range(255)], "f")


A, B = NamedObject("a"), NamedObject("b")
SMALL, LARGE = (15, 15, 25, 25), (10, 10, 40, 40)


def boxed(owner, box, z_order=0):
    return Shape(0, owner, rings=(box_ring(*box),), z_order=z_order)


def outlined(owner, box, z_order=0):
    x, y, right, bottom = box
    corners = [(x, y), (right, y), (right, y + 1), (right, bottom), (x, bottom)]
    return Shape(0, owner, rings=(np.array(corners, float),), z_order=z_order)


@pytest.mark.parametrize("drawn", [boxed, outlined])
def test_later_shapes_are_drawn_over_earlier_ones(drawn):
    shapes = [drawn(owner, box) for owner, box in zip((A, B), BOXES, strict=True)]
    labels = paint(shapes, [A, B], HEIGHT, WIDTH, "f")
    assert (labels[10:20, 10:20] == 1).all()
    assert (labels[20:40, 20:40] == 2).all()


def test_smaller_boxes_are_drawn_over_larger_ones_and_outlines_over_boxes():
    labels = paint([boxed(A, SMALL), boxed(B, (20, 10, 60, 40))], [A, B], HEIGHT, WIDTH, "f")
    assert (labels[15:25, 15:25] == 1).all()
    labels = paint([outlined(A, LARGE), boxed(B, (30, 30, 50, 42))], [A, B], HEIGHT, WIDTH, "f")
    assert (labels[30:40, 30:40] == 1).all()


def test_an_object_hidden_by_another_is_drawn_on_top_or_refused():
    labels = paint([outlined(A, SMALL), outlined(B, LARGE)], [A, B], HEIGHT, WIDTH, "f")
    assert (labels[15:25, 15:25] == 1).all()
    assert (labels == 2).any()
    twice = [boxed(A, SMALL), boxed(B, SMALL)]
    with pytest.raises(InputError, match="f: frame 0: b: is hidden by a: expected objects that"):
        paint(twice, [A, B], HEIGHT, WIDTH, "f")
    with pytest.raises(InputError, match="f: frame 0: a: has no pixel inside the video of 64x48"):
        paint([boxed(A, (70, 0, 80, 9))], [A], HEIGHT, WIDTH, "f")


def test_shapes_of_higher_z_order_are_drawn_on_top():
    for drawn in (boxed, outlined):
        shapes = [drawn(A, SMALL, 2), drawn(B, LARGE, 1)]
        labels = paint(shapes, [A, B], HEIGHT, WIDTH, "f")
        assert (labels[15:25, 15:25] == 1).all()
        shapes = [drawn(A, SMALL, 1), drawn(B, LARGE, 2)]
        with pytest.raises(InputError, match="frame 0: a: is hidden by b"):
            paint(shapes, [A, B], HEIGHT, WIDTH, "f")


def test_the_z_order_is_read_from_cvat(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(CVAT.replace('z_order="0"', 'z_order="3"'))
    assert [shape.z_order for shape in read_shapes(path, WIDTH, HEIGHT)] == [3, 0, 0]


BOXES = ((10, 10, 30, 30), (20, 20, 40, 40))

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task>
    <size>40</size><mode>interpolation</mode>
    <original_size><width>64</width><height>48</height></original_size>
  </task></meta>
  <track id="0" label="person" source="manual">
    <polygon frame="3" keyframe="1" outside="0" occluded="0" z_order="0"
      points="5.00,10.00;25.00,10.00;25.00,30.00;5.00,30.00"></polygon>
    <polygon frame="4" keyframe="0" outside="0" occluded="0"
      points="6.00,10.00;26.00,10.00;26.00,30.00;6.00,30.00"/>
    <polygon frame="5" keyframe="1" outside="1" occluded="0"
      points="6.00,10.00;26.00,10.00;26.00,30.00;6.00,30.00"/>
  </track>
  <track id="1" label="person">
    <box frame="3" keyframe="1" outside="0" occluded="0" xtl="40" ytl="5" xbr="50" ybr="15">
      <attribute name="age">3</attribute>
    </box>
  </track>
  <track id="2" label="ball">
    <mask frame="7" keyframe="1" outside="0" occluded="0"
      rle="1, 2, 2, 3, 1" left="50" top="40" width="3" height="3"/>
  </track>
</annotations>
"""


def test_only_drawn_shapes_are_read_from_cvat_for_video(tmp_path):
    path = tmp_path / "annotations.xml"
    path.write_text(CVAT)
    shapes, objects = number_objects(read_shapes(path, WIDTH, HEIGHT), "")
    assert [owner.name for owner in objects] == ["person", "person", "ball"]
    # without shapes that CVAT interpolated and frames in which the object is gone
    assert [shape.frame for shape in shapes] == [3, 3, 7]
    assert (shapes[0].mask(HEIGHT, WIDTH) == BOX).all()
    assert shapes[1].mask(HEIGHT, WIDTH)[5:15, 40:50].all()
    rows, columns = np.nonzero(shapes[2].mask(HEIGHT, WIDTH))
    assert list(zip(rows - 40, columns - 50, strict=True)) == [
        (0, 1),
        (0, 2),
        (1, 2),
        (2, 0),
        (2, 1),
    ]


def cvat_shape(number, frame, tag, outline, more='source="manual"'):
    """A shape as CVAT for video writes it: a track that ends in the next frame."""
    elements = [
        f'<{tag} frame="{frame + outside}" keyframe="1" outside="{outside}" {outline}/>'
        for outside in (0, 1)
    ]
    return f'<track id="{number}" label="dog" {more}>{"".join(elements)}</track>'


@pytest.mark.parametrize(
    ("tag", "outline", "source"),
    [
        ("polygon", 'points="5,10;25,10;25,30;5,30"', "manual"),
        ("box", 'xtl="5" ytl="10" xbr="25" ybr="30"', "semi-auto"),
        ("mask", 'rle="0, 4" left="5" top="10" width="2" height="2"', "file"),
    ],
)
def test_a_cvat_track_that_ends_in_the_next_frame_is_a_single_shape(tmp_path, tag, outline, source):
    def objects_of(*tracks):
        path = tmp_path / "a.xml"
        path.write_text(f"<annotations>{''.join(tracks)}</annotations>")
        shapes, objects = number_objects(read_shapes(path, WIDTH, HEIGHT), "f")
        return [shape.frame for shape in shapes], [owner.name for owner in objects]

    def shape(number, frame, more=""):
        return cvat_shape(number, frame, tag, outline, f'source="{source}" {more}')

    # a dog that is drawn again in a later frame is the same object
    assert objects_of(shape(0, 3), shape(1, 7)) == ([3, 7], ["dog"])
    assert objects_of(shape(0, 3), shape(1, 3)) == ([3, 3], ["dog", "dog"])
    groups = shape(0, 3, 'group_id="1"'), shape(1, 7, 'group_id="2"')
    assert objects_of(*groups) == ([3, 7], ["dog", "dog"])
    with pytest.raises(InputError, match="f: frame 3: 2 shapes 'dog' without an id"):
        objects_of(shape(0, 3), shape(1, 3), shape(2, 7))


def test_a_short_track_that_was_imported_into_cvat_stays_a_track(tmp_path):
    square = "polygon", 'points="5,10;25,10;25,30;5,30"'
    tracks = [
        cvat_shape(n, n, *square, f'source="{name}"') for n, name in ((1, "auto"), (5, "file"))
    ]
    path = tmp_path / "a.xml"
    path.write_text(f"<annotations>{''.join(tracks)}</annotations>")
    _, objects = number_objects(read_shapes(path, WIDTH, HEIGHT), "f")
    assert len(objects) == 2


@pytest.mark.parametrize(
    ("drawn", "area"),
    [
        ('<ellipse cx="30" cy="20" rx="12" ry="6" rotation="30"/>', np.pi * 72),
        ('<box xtl="20" ytl="20" xbr="40" ybr="24" rotation="45"/>', 80),
    ],
)
def test_rotated_shapes_are_read_from_cvat_for_images(tmp_path, drawn, area):
    element = drawn.replace("<ellipse", '<ellipse label="a"').replace("<box", '<box label="a"')
    path = tmp_path / "a.xml"
    path.write_text(
        f'<annotations><image id="4" name="x.png" width="64" height="48">{element}</image>'
        "</annotations>"
    )
    (shape,) = read_shapes(path, WIDTH, HEIGHT)
    mask = shape.mask(HEIGHT, WIDTH)
    assert shape.frame == "x"
    assert mask.sum() == pytest.approx(area, rel=0.12)
    rows, columns = np.nonzero(mask)
    # the rotation is clockwise because the y axis points down
    assert np.corrcoef(rows, columns)[0, 1] > 0.5


def test_frames_of_cvat_for_images_are_identified_by_name_not_by_id(tmp_path):
    box = '<box label="a" xtl="1" ytl="1" xbr="9" ybr="9"/>'
    names = ("clip/frame_000012.png", "C:\\clip\\frame_000020.PNG", "frame_000021")
    images = [
        f'<image id="{number}" name="{name}">{box}</image>' for number, name in enumerate(names)
    ]
    path = tmp_path / "a.xml"
    path.write_text(f"<annotations>{''.join(images)}</annotations>")
    frames = [shape.frame for shape in read_shapes(path, WIDTH, HEIGHT)]
    assert frames == ["frame_000012", "frame_000020", "frame_000021"]


def test_labels_of_several_videos_are_refused(tmp_path):
    def refused(path, words):
        with pytest.raises(InputError, match=words):
            read_shapes(path, WIDTH, HEIGHT)

    path = tmp_path / "a.xml"
    task = CVAT[CVAT.index("<task>") : CVAT.index("</meta>")]
    path.write_text(CVAT.replace(task, f"<project><tasks>{task}{task}</tasks></project>"))
    refused(path, "2 tasks: expected the export of one")
    box = '<box label="a" xtl="1" ytl="1" xbr="9" ybr="9"/>'
    images = [f'<image id="{n}" name="cam{n}/0.png">{box}</image>' for n in range(2)]
    path.write_text(f"<annotations>{''.join(images)}</annotations>")
    words = "images cam0/0.png and cam1/0.png: have the same name"
    refused(path, f"{words}: expected those of one video")
    path = tmp_path / "a.json"
    images = [{"id": n, "file_name": f"cam{n}/0.png"} for n in range(2)]
    path.write_text(coco([], images=images))
    refused(path, words)
    for name in ("train", "val"):
        (tmp_path / "labels" / name).mkdir(parents=True)
        (tmp_path / "labels" / name / "0.txt").write_text("0 .5 .5 .1 .1")
    refused(tmp_path / "labels", "train/0.txt and .*val/0.txt: have the same name")


def test_each_point_of_a_cvat_points_shape_is_an_object(tmp_path):
    path = tmp_path / "a.xml"
    points = '<points frame="2" keyframe="1" outside="0" points="1.5,2.5;3.00,4.00"/>'
    path.write_text(f'<annotations><track id="0" label="hand">{points}</track></annotations>')
    shapes, objects = number_objects(read_shapes(path, WIDTH, HEIGHT), "")
    assert [shape.point for shape in shapes] == [(1.5, 2.5), (3.0, 4.0)]
    assert [owner.name for owner in objects] == ["hand", "hand"]


def coco(annotations, **more):
    document = {
        "images": [
            {"id": 7, "file_name": "clip/frame_000003.jpg", "width": WIDTH, "height": HEIGHT},
            {"id": 8, "file_name": "clip/frame_000009.jpg", "width": WIDTH, "height": HEIGHT},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 5, "name": "ball"}],
        "annotations": annotations,
    }
    return json.dumps({**document, **more})


def test_coco_polygons_run_lengths_and_boxes_are_read(tmp_path):
    from pycocotools import mask as coder

    polygon = [5, 10, 25, 10, 25, 30, 5, 30]
    packed = coder.encode(np.asfortranarray(BOX.astype(np.uint8)))
    columns = BOX.T.reshape(-1).astype(int)
    ends = np.flatnonzero(np.diff(columns)) + 1
    counts = np.diff([0, *ends, columns.size]).tolist()
    kinds = [
        {"segmentation": [polygon, [40, 5, 50, 5, 50, 15, 40, 15]], "track_id": 1},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}},
        {"segmentation": [], "bbox": [5, 10, 20, 20]},
        {"segmentation": [polygon, polygon]},  # they overlap
        {"segmentation": polygon},
    ]
    path = tmp_path / "instances.json"
    path.write_text(
        coco([{"id": n, "image_id": 7, "category_id": 5, **k} for n, k in enumerate(kinds)])
    )
    shapes = read_shapes(path, WIDTH, HEIGHT)
    assert [shape.frame for shape in shapes] == ["frame_000003"] * 6
    first, *others = (shape.mask(HEIGHT, WIDTH) for shape in shapes)
    assert first[5:15, 40:50].all()
    assert first.sum() == BOX.sum() + 100
    for mask in others:
        assert (mask == BOX).all()


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0, 3.0]), st.floats(0, 1))
def test_packed_run_lengths_decode_as_in_pycocotools(seed, smooth, share):
    from pycocotools import mask as coder

    mask = blobs(seed, smooth, share)
    packed = coder.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    pixels = pixels_of_runs(unpack_runs(packed), WIDTH * HEIGHT).reshape(WIDTH, HEIGHT).T
    np.testing.assert_array_equal(pixels, mask)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([100, 200], "run lengths of 300 pixels: expected 3072"),
        ([100, 200, 3000], "run lengths of 3300 pixels: expected 3072"),
        ([100, -28, 3000], "run lengths of 3072 pixels: expected 3072, none below 0"),
        ("T3X6", "run lengths of 300 pixels: expected 3072"),
        ("T3X", "run lengths: end within a number"),
        ("T3 X6", "run lengths: letter ' ': expected COCO's"),
    ],
)
def test_run_lengths_that_are_damaged_or_of_another_size_are_refused(tmp_path, counts, words):
    segmentation = {"size": [HEIGHT, WIDTH], "counts": counts}
    path = tmp_path / "a.json"
    path.write_text(coco([{"image_id": 7, "category_id": 5, "segmentation": segmentation}]))
    with pytest.raises(InputError, match=f"annotation 0: {words}"):
        read_shapes(path, WIDTH, HEIGHT)


def test_run_lengths_of_cvat_must_fill_their_box(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(CVAT.replace("1, 2, 2, 3, 1", "1, 2, 2, 3, 2"))
    with pytest.raises(InputError, match="track 2: run lengths of 10 pixels: expected 9"):
        read_shapes(path, WIDTH, HEIGHT)


@pytest.mark.parametrize("field", ["track_id", "instance_id", "attributes"])
def test_coco_objects_are_identified_by_their_track_id(tmp_path, field):
    def annotation(image, track):
        key = {field: {"track_id": track}} if field == "attributes" else {field: track}
        return {"image_id": image, "category_id": 1, "bbox": [1, 1, 5, 5], **key}

    path = tmp_path / "a.json"
    path.write_text(coco([annotation(7, 3), annotation(7, 4), annotation(8, 4)]))
    shapes, objects = number_objects(read_shapes(path, WIDTH, HEIGHT), "")
    assert len(objects) == 2
    assert shapes[1].object == shapes[2].object


def test_only_drawn_shapes_are_read_from_coco_exported_by_cvat(tmp_path):
    def annotation(image, **attributes):
        box = {"image_id": image, "category_id": 1, "bbox": [1, 1, 5, 5]}
        return {**box, "attributes": {"occluded": False, **attributes}}

    path = tmp_path / "a.json"
    drawn = annotation(7, track_id=0, keyframe=True)
    interpolated = annotation(8, track_id=0, keyframe=False)
    # CVAT never marks a skeleton outside of a track as a keyframe
    path.write_text(coco([drawn, interpolated, annotation(8, keyframe=False)]))
    frames = [shape.frame for shape in read_shapes(path, WIDTH, HEIGHT)]
    assert frames == ["frame_000003", "frame_000009"]


@pytest.mark.parametrize("count", [{}, {"num_keypoints": 2}])
def test_only_labelled_coco_keypoints_are_read_as_points(tmp_path, count):
    categories = [{"id": 1, "name": "man", "keypoints": ["nose", "hand", "foot"]}]
    keypoints = {"keypoints": [10, 20, 2, 0, 0, 0, 30, 40, 1], **count}
    path = tmp_path / "a.json"
    path.write_text(coco([{"image_id": 7, "category_id": 1, **keypoints}], categories=categories))
    shapes = read_shapes(path, WIDTH, HEIGHT)
    assert [shape.object.name for shape in shapes] == ["man nose", "man foot"]
    assert [shape.point for shape in shapes] == [(10.5, 20.5), (30.5, 40.5)]


def labelme(shapes, image="frames\\00012.jpg"):
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    return json.dumps({"version": "5.2.1", "shapes": shapes, "imagePath": image, **size})


def test_labelme_shapes_of_a_group_are_one_object(tmp_path):
    bits = io.BytesIO()
    Image.fromarray(BOX[10:30, 5:25]).save(bits, "PNG")
    mask = {
        "shape_type": "mask",
        "points": [[5, 10], [24, 29]],
        "mask": base64.b64encode(bits.getvalue()).decode(),
    }
    kinds = [
        {"shape_type": "polygon", "points": [[5, 10], [25, 10], [25, 30], [5, 30]]},
        {"shape_type": "rectangle", "points": [[25, 30], [5, 10]]},
        {"shape_type": "rectangle", "points": SQUARE},
        {"shape_type": "oriented_rectangle", "points": SQUARE},
        {"shape_type": "rotation", "points": SQUARE, "direction": 0},
        mask,
        {"points": [[5, 10], [25, 10], [25, 30], [5, 30]]},
    ]
    shapes = [{"label": "cat", "group_id": 1, **kind} for kind in kinds]
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "00012.json").write_text(labelme(shapes))
    (folder / "00013.json").write_text(labelme(shapes[:1], "00013.jpg"))
    shapes, objects = number_objects(read_shapes(folder, WIDTH, HEIGHT), "")
    assert [shape.frame for shape in shapes] == ["00012"] * 7 + ["00013"]
    assert len(objects) == 1
    for shape in shapes:
        assert (shape.mask(HEIGHT, WIDTH) == BOX).all()


def test_two_labelme_files_of_one_image_are_refused(tmp_path):
    square = {"label": "a", "points": SQUARE}
    for name in ("00000", "00005"):
        (tmp_path / f"{name}.json").write_text(labelme([square], "00000.png"))
    words = "00005.json: imagePath '00000': is also that of 00000.json: expected one file for each"
    with pytest.raises(InputError, match=words):
        read_shapes(tmp_path, WIDTH, HEIGHT)


def test_labelme_points_and_circles_are_read(tmp_path):
    shapes = [
        {"label": "a", "shape_type": "point", "points": [[3.5, 4.5]], "group_id": None},
        {"label": "b", "shape_type": "circle", "points": [[30, 24], [30, 14]]},
    ]
    path = tmp_path / "a.json"
    path.write_text(labelme(shapes))
    point, circle = read_shapes(path, WIDTH, HEIGHT)
    assert point.point == (3.5, 4.5)
    assert circle.mask(HEIGHT, WIDTH).sum() == pytest.approx(np.pi * 100, rel=0.03)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.yaml", "names: [person, ball]\n"),
        ("data.yaml", "names:\n  0: person\n  1: ball\n"),
        ("classes.txt", "person\nball\n"),
    ],
)
def test_yolo_polygons_and_boxes_are_read_with_their_class_names(tmp_path, name, text):
    folder = tmp_path / "labels" / "train"
    folder.mkdir(parents=True)
    (tmp_path / name).write_text(text)
    share = [5 / 64, 10 / 48, 25 / 64, 10 / 48, 25 / 64, 30 / 48, 5 / 64, 30 / 48]
    polygon = " ".join(map(str, share))
    (folder / "frame_000002.txt").write_text(
        f"1 {polygon}\n\n0 {15 / 64} {20 / 48} .3125 0.41666667\n"
    )
    shapes = read_shapes(tmp_path, WIDTH, HEIGHT)
    assert [shape.object.name for shape in shapes] == ["ball", "person"]
    for shape in shapes:
        assert (shape.mask(HEIGHT, WIDTH) == BOX).all()


def test_an_unpacked_yolo_export_of_roboflow_is_read(tmp_path):
    (tmp_path / "train" / "labels").mkdir(parents=True)
    (tmp_path / "train" / "labels" / "frame_2_jpg.rf.0ab1.txt").write_text("0 .5 .5 .1 .1\n")
    (tmp_path / "data.yaml").write_text("train: ../train/images\nnc: 1\nnames: ['dog']\n")
    for name in ("README.dataset.txt", "README.roboflow.txt"):
        (tmp_path / name).write_text("\nmy project - v1\n====\n")
    (shape,) = read_shapes(tmp_path, WIDTH, HEIGHT)
    assert (shape.frame, shape.object.name) == ("frame_2_jpg.rf.0ab1", "dog")


@pytest.mark.parametrize(
    ("kpt_shape", "numbers"),
    [("[3, 2]", ".25 .5 0 0 1.0000009 .75"), ("[3, 3]", ".25 .5 2 .1 .1 0 1.0000009 .75 1")],
)
def test_only_labelled_yolo_keypoints_are_read_as_points(tmp_path, kpt_shape, numbers):
    (tmp_path / "data.yaml").write_text(f"names: [man]\nkpt_shape: {kpt_shape}\n")
    path = tmp_path / "frame_2.txt"
    path.write_text(f"0 .5 .5 .1 .1 {numbers}\n")
    shapes = read_shapes(path, WIDTH, HEIGHT)
    assert [shape.object.name for shape in shapes] == ["man 1", "man 3"]
    assert [shape.point for shape in shapes] == [(16, 24), (64, 36)]
    path.write_text("0 .5 .5 .1 .1\n")
    assert read_shapes(path, WIDTH, HEIGHT)[0].rings
    path.write_text("0 .5 .5 .1 .1 .2 .2\n")
    words = "line 1: 6 numbers after the class: expected 4 for a box and . for each of 3 keypoints"
    with pytest.raises(InputError, match=words):
        read_shapes(path, WIDTH, HEIGHT)
    (tmp_path / "data.yaml").write_text("names: [man]\nkpt_shape: [3, 4]\n")
    with pytest.raises(InputError, match="kpt_shape: 3, 4: expected how many, and 2 or 3 numbers"):
        read_shapes(path, WIDTH, HEIGHT)


@pytest.mark.parametrize("name", ["data.yaml", "classes.txt", "labelmap.txt", "0.txt", "0.json"])
def test_text_may_have_a_utf_8_byte_order_mark_but_no_other_encoding(tmp_path, name):
    texts = {"0.txt": "0 .5 .5 .1 .1\n", "0.json": labelme([{"label": "Bär", "points": SQUARE}])}
    labels = tmp_path / ("0.txt" if name in ("data.yaml", "classes.txt", "0.txt") else "0.json")
    if name == "labelmap.txt":
        labels = tmp_path / "0.png"
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 7, np.uint8)).save(labels)
    else:
        labels.write_text(texts[labels.name], encoding="utf-8")
    texts |= {"data.yaml": "names: [Bär]", "classes.txt": "Bär", "labelmap.txt": "Bär:7,7,7::"}
    (tmp_path / name).write_text(texts[name], encoding="utf-8-sig")
    (shape,) = read_shapes(labels, WIDTH, HEIGHT)
    assert shape.object.name == ("0" if name == "0.txt" else "Bär")
    (tmp_path / name).write_text(texts[name] + "ä", encoding="latin-1")
    with pytest.raises(InputError, match=f"{name}: byte [0-9]+: expected text in UTF-8"):
        read_shapes(labels, WIDTH, HEIGHT)


def test_label_pngs_are_read_by_number_or_by_label_map_colour(tmp_path):
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[BOX], labels[40:44, 40:50] = 1, 2
    Image.fromarray(labels).save(tmp_path / "00003.png")
    shapes = read_shapes(tmp_path, WIDTH, HEIGHT)
    assert [shape.object.name for shape in shapes] == ["1", "2"]
    assert (shapes[0].mask(HEIGHT, WIDTH) == BOX).all()
    colors = np.array([(0, 0, 0), (250, 50, 60), (20, 30, 200)], np.uint8)[labels]
    (tmp_path / "in-colours").mkdir()
    Image.fromarray(colors).save(tmp_path / "in-colours" / "00003.png")
    head = "# label:color_rgb:parts:actions\nbackground:0,0,0::\n"
    lines = f"{head}cat:250,50,60::\ndog:20,30,200::\n"
    (tmp_path / "in-colours" / "labelmap.txt").write_text(lines)
    shapes = read_shapes(tmp_path / "in-colours", WIDTH, HEIGHT)
    assert sorted(shape.object.name for shape in shapes) == ["cat", "dog"]
    cat = next(shape for shape in shapes if shape.object.name == "cat")
    assert (cat.mask(HEIGHT, WIDTH) == BOX).all()


def write_instances(root, name, labels, classes):
    """Write the object numbers of an image to SegmentationObject, and the classes of the objects,
    `classes[n]` for number n, to SegmentationClass."""
    palette = np.array(PALETTE, np.uint8).reshape(256, 3)
    for folder, numbers in (("SegmentationObject", labels), ("SegmentationClass", classes[labels])):
        (root / folder).mkdir(exist_ok=True)
        Image.fromarray(palette[numbers]).save(root / folder / f"{name}.png")


def test_pascal_voc_instances_are_named_after_their_classes(tmp_path):
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[BOX], labels[40:44, 40:50] = 1, 2
    write_instances(tmp_path, "00003", labels, np.array([0, 2, 2]))
    objects = tmp_path / "SegmentationObject"
    shapes, owners = number_objects(read_shapes(objects, WIDTH, HEIGHT), "f")
    assert [owner.name for owner in owners] == ["object", "object"]
    (tmp_path / "labelmap.txt").write_text("cat:128,0,0::\ndog:0,128,0::\n")
    shapes, owners = number_objects(read_shapes(objects, WIDTH, HEIGHT), "f")
    assert [owner.name for owner in owners] == ["dog", "dog"]
    assert (shapes[0].mask(HEIGHT, WIDTH) == BOX).all()
    (shape,) = read_shapes(tmp_path / "SegmentationClass", WIDTH, HEIGHT)
    assert shape.object.name == "dog"
    with pytest.raises(InputError, match=r"holds PASCAL VOC: expected .*/SegmentationClass, in"):
        read_shapes(tmp_path, WIDTH, HEIGHT)


def test_pascal_voc_instance_numbers_start_anew_in_each_image(tmp_path):
    (tmp_path / "labelmap.txt").write_text("cat:128,0,0::\ndog:0,128,0::\n")
    both, alone = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    both[BOX], both[40:44, 40:50], alone[40:44, 40:50] = 1, 2, 1
    # Datumaro and CVAT number the objects of each image from 1, so the dog is 2 in the first image
    # and 1 in the second
    write_instances(tmp_path, "00003", both, np.array([0, 1, 2]))
    write_instances(tmp_path, "00005", alone, np.array([0, 2]))
    folder = tmp_path / "SegmentationObject"
    shapes, owners = number_objects(read_shapes(folder, WIDTH, HEIGHT), "f")
    assert [owner.name for owner in owners] == ["cat", "dog"]
    assert shapes[1].object == shapes[2].object
    write_instances(tmp_path, "00003", both, np.array([0, 2, 2]))
    with pytest.raises(InputError, match="f: frame 00003: 2 shapes 'dog' without an id, and more"):
        number_objects(read_shapes(folder, WIDTH, HEIGHT), "f")


@pytest.mark.parametrize("name", ["a.xml", "a.XML", "a.json", "a.JSON", "a.txt", "a.TXT", "a.PNG"])
def test_a_folder_with_one_visible_file_is_read_as_that_file(tmp_path, name):
    if name == "a.PNG":
        Image.fromarray(BOX).save(tmp_path / name)
    else:
        box = {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}
        texts = {".xml": CVAT, ".json": coco([box]), ".txt": "0 .5 .5 .1 .1\n"}
        (tmp_path / name).write_text(texts[name[1:].lower()])
    for hidden in (".DS_Store", "._a.json", "._a.xml", "._a.txt", "._a.png", "Thumbs.db"):
        (tmp_path / hidden).write_bytes(b"\0\5\x16\7\xff")
    found, expected = (read_shapes(p, WIDTH, HEIGHT) for p in (tmp_path, tmp_path / name))
    assert [str(shape) for shape in found] == [str(shape) for shape in expected]


def test_text_files_named_like_the_frames_beside_them_are_the_labels(tmp_path):
    for name in ("00000", "00001"):
        Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3)).save(tmp_path / f"{name}.png")
    (tmp_path / "00001.txt").write_text("0 .5 .5 .1 .1\n")
    (tmp_path / "classes.txt").write_text("dog\n")
    (shape,) = read_shapes(tmp_path, WIDTH, HEIGHT)
    assert (shape.frame, shape.object.name) == ("00001", "dog")


def test_the_void_colour_of_pascal_voc_is_not_a_class(tmp_path):
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[BOX], labels[40:44, 40:50] = 255, 1
    colors = np.zeros((256, 3), np.uint8)
    colors[1], colors[255] = (250, 50, 60), (224, 224, 192)
    Image.fromarray(colors[labels]).save(tmp_path / "00003.png")
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\ncat:250,50,60::\n")
    (shape,) = read_shapes(tmp_path, WIDTH, HEIGHT)
    assert shape.object.name == "cat"
    (tmp_path / "labelmap.txt").write_text("cat:250,50,60::\nunknown:224,224,192::\n")
    assert len(read_shapes(tmp_path, WIDTH, HEIGHT)) == 2


def test_invalid_annotation_files_give_one_line_errors(tmp_path):
    def refused(name, text, words):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(InputError, match=words) as raised:
            read_shapes(path, WIDTH, HEIGHT)
        assert "\n" not in str(raised.value)

    with pytest.raises(InputError, match="no such file or folder: expected CVAT's"):
        read_shapes(tmp_path / "none", WIDTH, HEIGHT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no known format: expected CVAT's"):
        read_shapes(tmp_path / "empty", WIDTH, HEIGHT)
    refused("a.csv", "", "has no known format")
    refused("a.xml", "<a>", "not XML")
    refused("a.xml", "<annotation/>", "<annotation>: expected CVAT's <annotations>")
    refused("a.xml", "<annotations/>", "nothing is labelled there")
    refused("a.xml", CVAT.replace(">64<", ">128<"), "of 128x48, the video is 64x48")
    refused("a.xml", CVAT.replace('label="ball"', ""), "track 2: has no 'label'")
    refused("a.xml", CVAT.replace("polygon", "polyline"), "polyline: expected polygon, box")
    refused("a.xml", CVAT.replace("25.00,10.00", "25.00"), "track 0: ")
    for far in ("1e20", "1e308", "nan"):
        corner = CVAT.replace("25.00,10.00", f"25.00,{far}")
        refused("a.xml", corner, "track 0: point .25.0, .*: expected x and y in pixels")
        point = {"label": "a", "shape_type": "point", "points": [[1, float(far)]]}
        refused("a.json", labelme([point]), "shape 1: point .*: expected x and y in pixels")
    refused("a.json", "{", "not JSON")
    refused("a.json", "[]", "is not a JSON object")
    refused("a.json", coco([{"image_id": 9}]), "annotation 0: image_id 9: is not among the images")
    unknown = [{"image_id": 7, "category_id": 2}]
    refused("a.json", coco(unknown), "annotation 0: category_id 2: is not among the categories")
    refused("a.json", "{}", "is JSON of no known format: expected Labelme's, with 'imagePath', or")
    corners = [{"label": "a", "shape_type": "rectangle", "points": SQUARE[:3]}]
    refused("a.json", labelme(corners), "shape 1: rectangle of 3 points: expected 2 or 4")
    circle = {"label": "a", "shape_type": "circle", "points": [[1, 1]]}
    refused("a.json", labelme([circle]), "shape 1: circle of 1 points: expected 2")
    refused("a.json", coco([], videos=[1, 2]), "2 videos: expected one")
    rle = {"segmentation": {"size": [10, 12], "counts": [120]}, "image_id": 7, "category_id": 1}
    refused("a.json", coco([rle]), "run lengths of 12x10: expected 64x48")
    line = {"label": "a", "shape_type": "line", "points": [[1, 1], [2, 2]]}
    refused("a.json", labelme([line]), "line: expected polygon, rectangle")
    refused("a.json", labelme([{"label": "a"}]), "shape 1: has no 'points'")
    refused("a.txt", "0 0.5 0.5 0.1\n", "line 1: 3 numbers after the class: expected 4 for a box")
    refused("a.txt", "0 5 6 10 10\n", "line 1: 5 to 10: expected fractions")
    refused("a.txt", "0 a b c d\n", "line 1: could not convert")


def node_paths(document, path=()):
    """The paths of all nodes of a JSON document."""
    yield path
    if isinstance(document, dict | list):
        keys = document if isinstance(document, dict) else range(len(document))
        for key in keys:
            yield from node_paths(document[key], (*path, key))


SAMPLES = {
    "coco": coco(
        [
            {"id": 1, "image_id": 7, "category_id": 5, "segmentation": [[5, 10, 25, 10, 25, 30]]},
            {"id": 2, "image_id": 8, "category_id": 1, "bbox": [1, 2, 3, 4], "track_id": 1},
            {
                "image_id": 8,
                "category_id": 1,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": [10, 20, 3042]},
            },
        ]
    ),
    "labelme": labelme(
        [
            {"label": "a", "points": [[5, 10], [25, 10], [25, 30]], "group_id": 1},
            {"label": "b", "points": [[5, 10], [25, 10]], "shape_type": "rectangle"},
        ]
    ),
}


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(sorted(SAMPLES)),
    st.integers(0, 10_000),
    st.sampled_from([None, "x", -1, 1e9, [], {}, [[1]], True, "removed"]),
)
def test_any_mistake_in_a_json_file_gives_a_one_line_error(tmp_path_factory, name, index, value):
    document = json.loads(SAMPLES[name])
    paths = list(node_paths(document))[1:]
    *parents, key = paths[index % len(paths)]
    node = document
    for parent in parents:
        node = node[parent]
    if value == "removed":
        del node[key]
    else:
        node[key] = value
    path = tmp_path_factory.mktemp("wrong") / "a.json"
    path.write_text(json.dumps(document))
    try:
        shapes, objects = number_objects(read_shapes(path, WIDTH, HEIGHT), f"labels {path}")
        if all(shape.point is None for shape in shapes):
            paint(shapes, objects, HEIGHT, WIDTH, f"labels {path}")
    except InputError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)


OBJECTS = [NamedObject("person"), NamedObject("ball"), NamedObject("person")]


def write(name, folder, frames, tolerance, images=()):
    """Write the shapes of each frame in a format, and return the path."""
    video = AnnotatedVideo("my.mp4", WIDTH, HEIGHT, OBJECTS, images)
    writer = open_writer(name, folder / "out.mp4", video, tolerance)
    for index, shapes in enumerate(frames):
        writer.add(index, np.zeros((HEIGHT, WIDTH, 3), np.uint8), shapes)
    writer.finish()
    return writer.path


@pytest.fixture(scope="module")
def frames():
    """Shapes of three frames: the first and third have the ball, only the second has object 3."""
    first, second, third = (blobs(seed, 3.0, 0.6) for seed in (1, 2, 3))
    ball = BOX & ~binary_dilation(first)
    far = np.zeros_like(BOX)
    far[40:44, 50:60] = True
    return [
        [TrackedShape(1, first & ~BOX), TrackedShape(2, BOX)],
        [TrackedShape(1, second & ~far), TrackedShape(3, far)],
        [TrackedShape(1, third & ~BOX), TrackedShape(2, ball | BOX)],
    ]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("tolerance", [0, 1.0])
def test_written_annotations_read_back_the_same(tmp_path, frames, name, tolerance):
    path = write(name, tmp_path, frames, tolerance)
    shapes = read_shapes(path, WIDTH, HEIGHT)
    for index, expected in enumerate(frames):
        names = {index, f"frame_{index:06d}"}
        found = [shape for shape in shapes if shape.frame in names]
        keys = list(dict.fromkeys(s.object for s in found)) if name != "yolo" else found
        for number, shape in enumerate(expected):
            same = [s for s in found if s.object == keys[number] or s is keys[number]]
            mask = np.logical_xor.reduce([s.mask(HEIGHT, WIDTH) for s in same])
            assert same[0].object.name == OBJECTS[shape.number - 1].name
            wrong = (mask != shape.mask).sum()
            # COCO's run lengths are exact at any tolerance
            assert wrong == 0 if not tolerance else wrong < 0.06 * shape.mask.sum()


@pytest.mark.parametrize("name", ["cvat", "coco", "labelme"])
def test_objects_keep_their_identity_across_frames(tmp_path, frames, name):
    path = write(name, tmp_path, frames, 0)
    shapes, objects = number_objects(read_shapes(path, WIDTH, HEIGHT), "")
    assert sorted(owner.name for owner in objects) == ["ball", "person", "person"]
    first = [s.object for s in shapes if s.frame in (0, "frame_000000")]
    last = [s.object for s in shapes if s.frame in (2, "frame_000002")]
    assert set(first) == set(last)


@pytest.mark.parametrize(("name", "kind"), [("coco", "track"), ("labelme", "group")])
def test_objects_keep_the_ids_that_they_were_read_with(tmp_path, name, kind):
    keys = [f"{kind} 0", "", f"{kind} 1"]
    objects = [NamedObject("person", key) for key in keys]
    video = AnnotatedVideo("my.mp4", WIDTH, HEIGHT, objects)
    writer = open_writer(name, tmp_path / "out.mp4", video, 1.0)
    shapes = [TrackedShape(number, BOX) for number in (1, 2, 3)]
    writer.add(0, np.zeros((HEIGHT, WIDTH, 3), np.uint8), shapes)
    writer.finish()
    read = [shape.object.key for shape in read_shapes(writer.path, WIDTH, HEIGHT)]
    assert read == [f"{kind} 0", f"{kind} 2", f"{kind} 1"]


@pytest.mark.parametrize("name", ["cvat", "coco", "labelme"])
def test_a_small_object_is_not_hidden_by_a_neighbours_simplified_outline(tmp_path, name):
    notch = np.zeros_like(BOX)
    notch[10, 15] = True
    frames = [[TrackedShape(1, notch), TrackedShape(2, BOX & ~notch)]]
    shapes, objects = number_objects(
        read_shapes(write(name, tmp_path, frames, 1.0), WIDTH, HEIGHT), "f"
    )
    assert (paint(shapes, objects, HEIGHT, WIDTH, "f") == 1).sum() == 1


def test_cvat_output_marks_the_frames_where_an_object_is_gone(tmp_path, frames):
    root = ElementTree.parse(write("cvat", tmp_path, frames, 1.0)).getroot()
    ball = root.findall("track")[1]
    facts = [(e.get("frame"), e.get("outside"), e.get("keyframe")) for e in ball]
    assert facts == [("0", "0", "1"), ("1", "1", "1"), ("2", "0", "1")]
    late = root.findall("track")[2]
    assert [(e.get("frame"), e.get("outside")) for e in late] == [("1", "0"), ("2", "1")]
    assert [e.text for e in root.findall(".//label/name")] == ["person", "ball"]
    assert (root.findtext(".//size"), root.findtext(".//stop_frame")) == ("3", "2")


def test_cvat_output_has_no_track_for_an_object_without_shapes(tmp_path):
    root = ElementTree.parse(write("cvat", tmp_path, [[TrackedShape(3, BOX)]], 1.0)).getroot()
    assert [(track.get("id"), len(track)) for track in root.iter("track")] == [("2", 1)]


def test_cvat_output_has_the_confidence_in_percent(tmp_path):
    frames = [[TrackedShape(1, point=(3.25, 4.5), confidence=0.934)]]
    root = ElementTree.parse(write("cvat", tmp_path, frames, 1.0)).getroot()
    assert root.findtext("track/points/attribute[@name='confidence']") == "93"
    label = root.find(".//label/attributes/attribute")
    assert {part.tag: part.text for part in label} == {
        "name": "confidence",
        "mutable": "True",
        "input_type": "number",
        "default_value": "100",
        "values": "0;100;1",
    }


def test_yolo_output_has_no_paths_that_depend_on_the_working_directory(tmp_path, frames):
    about = yaml.safe_load((write("yolo", tmp_path, frames, 1.0) / "data.yaml").read_text())
    assert about == {"train": "images", "val": "images", "names": {0: "person", 1: "ball"}}


def test_pycocotools_opens_the_coco_output(tmp_path, frames, capsys):
    from pycocotools.coco import COCO

    data = COCO(str(write("coco", tmp_path, frames, 0.5)))
    assert [c["name"] for c in data.loadCats(data.getCatIds())] == ["person", "ball"]
    for index, expected in enumerate(frames):
        annotations = data.loadAnns(data.getAnnIds(imgIds=[index + 1]))
        assert [a["track_id"] for a in annotations] == [shape.number for shape in expected]
        for annotation, shape in zip(annotations, expected, strict=True):
            mask = data.annToMask(annotation).astype(bool)
            union, overlap = (mask | shape.mask).sum(), (mask & shape.mask).sum()
            assert overlap > 0.9 * union
            assert annotation["area"] == shape.mask.sum()


@pytest.mark.parametrize("name", ["cvat", "coco", "labelme"])
def test_points_are_written_with_their_visibility(tmp_path, name):
    frames = [
        [TrackedShape(1, point=(3.25, 4.5)), TrackedShape(2, point=(8.0, 9.0))],
        [TrackedShape(1, point=(4.25, 4.5), hidden=True), TrackedShape(2, point=(8.5, 9.0))],
    ]
    path = write(name, tmp_path, frames, 1.0)
    shapes = read_shapes(path, WIDTH, HEIGHT)
    by_object = sorted(shapes, key=lambda s: (str(s.object), str(s.frame)))
    expected = [(8.0, 9.0), (8.5, 9.0), (3.25, 4.5), (4.25, 4.5)]
    assert [s.point for s in by_object] == expected
    files = [path] if path.is_file() else sorted(path.glob("*.json"))
    text = "".join(file.read_text() for file in files)
    hidden = {"cvat": 'occluded="1"', "coco": "4.0, 1]", "labelme": '"hidden"'}[name]
    assert text.count(hidden) == 1


def test_annotations_of_a_frame_folder_keep_its_images(tmp_path, frames):
    images = []
    for index in range(3):
        images.append(tmp_path / "video" / f"{index + 10:05d}.png")
        images[-1].parent.mkdir(exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (index, 0, 0)).save(images[-1])
    path = write("labelme", tmp_path, frames, 1.0, images)
    for file, image in zip(sorted(path.glob("*.json")), images, strict=True):
        record = json.loads(file.read_text())
        assert (path / record["imagePath"]).resolve() == image
        assert file.stem == image.stem
    linked = [tmp_path / "video" / f"link_{index}.png" for index in range(3)]
    for link, image in zip(linked, images, strict=True):
        link.symlink_to(image.name)
    path = write("labelme", tmp_path / "linked", frames, 1.0, linked)
    image_paths = [
        json.loads(file.read_text())["imagePath"] for file in sorted(path.glob("*.json"))
    ]
    assert image_paths == [f"../../video/{link.name}" for link in linked]
    path = write("yolo", tmp_path, frames, 1.0, images)
    for image in images:
        assert (path / "images" / image.name).read_bytes() == image.read_bytes()
        assert (path / "labels" / f"{image.stem}.txt").exists()


def test_the_error_for_a_missing_library_names_its_install_command(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "contourpy", None)
    with pytest.raises(InputError, match="need contourpy: pip install contourpy shapely"):
        outline(BOX, 1.0)
