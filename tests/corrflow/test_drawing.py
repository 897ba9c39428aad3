import csv
import json

import numpy as np

from corrflow.drawing import Dots, color, draw_boxes, mask_to_box
from corrflow.tracking.tables import TrackTable

GREY = np.full((150, 150, 3), 90, np.uint8)  # at this size, a dot has a radius of 2 pixels


def points(*rows):
    return np.array(rows, np.float32)


def test_visible_points_are_filled_dots_and_hidden_ones_are_hollow():
    drawn = Dots().draw(
        GREY, points((40, 50), (100, 50), (np.nan, np.nan)), np.array([True, False, False])
    )
    assert tuple(drawn[50, 40]) == color(1)
    assert tuple(drawn[50, 100]) == (90, 90, 90)
    assert (drawn[50, 97:104] != 90).any()
    assert (drawn[:, 110:] == 90).all()


def test_a_tail_shows_only_the_recent_positions_of_a_point():
    dots = Dots()
    for x in range(20, 60, 2):
        drawn = dots.draw(GREY, points((x, 50)), np.array([True]))
    assert tuple(drawn[50, 44]) == color(1)
    assert tuple(drawn[50, 26]) == (90, 90, 90)


def test_boxes_lie_on_the_outermost_pixels_of_their_objects():
    mask = np.zeros((150, 150), bool)
    mask[20:60, 30:80] = True
    assert mask_to_box(mask) == (30, 20, 80, 60)
    assert mask_to_box(mask & False) is None
    drawn = draw_boxes(GREY, {2: mask_to_box(mask), 3: None})
    assert tuple(drawn[20, 30]) == tuple(drawn[59, 79]) == color(2)
    assert tuple(drawn[60, 80]) == tuple(drawn[40, 50]) == (90, 90, 90)


def test_every_object_number_has_a_colour():
    assert color(1) == color(256) == (128, 0, 0)
    assert color(255) == color(510) != (0, 0, 0)


def test_a_track_table_has_a_row_for_each_point_in_each_frame(tmp_path):
    with TrackTable(
        tmp_path / "a.b", ("point", "x", "visible"), {"video": "ä.mp4", "width": 8}
    ) as table:
        table.add(3, 0.0, [(1, 2.5, True), (2, None, False)])
        table.add(4, 12345.678901, [(1, 3.0, False), (2, None, False)])
        table.finish()
    with (tmp_path / "a.b.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[:3] == [
        ["frame", "seconds", "point", "x", "visible"],
        ["3", "0.0", "1", "2.5", "1"],
        ["3", "0.0", "2", "", "0"],
    ]
    document = json.loads((tmp_path / "a.b.json").read_text())
    assert (document["video"], document["frames"][1]["seconds"]) == ("ä.mp4", 12345.678901)
    assert document["frames"][0]["points"][1] == {"point": 2, "x": None, "visible": False}
