"""Which frames are tracked, from which marked frames, and which keep their earlier result."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corrflow.tracking.plan import (
    Span,
    marked_objects,
    marked_points,
    plan_correction,
    plan_tracking,
    renumbered,
)

BOTH = {1: "a", 2: "b"}


def spans(old, new, *, to_beginning=False):
    return plan_correction(old, new, to_beginning=to_beginning).spans


def test_a_single_mask_is_tracked_only_forward():
    assert plan_tracking({3: BOTH}, to_beginning=False).spans == (Span(3, None),)


def test_to_the_beginning_tracks_back_from_the_last_marked_frame():
    (span,) = plan_tracking({3: {1: "a"}, 5: {2: "b"}}, to_beginning=True).spans
    assert span == Span(0, None, (range(5, -1, -1),))


def test_each_fully_marked_frame_is_tracked_back_to_the_previous_one():
    marked = {2: BOTH, 6: {1: "c"}, 9: BOTH, 10: BOTH, 14: BOTH}
    (span,) = plan_tracking(marked, to_beginning=False).spans
    assert span == Span(2, None, (range(9, 2, -1), range(14, 10, -1)))


def test_a_correction_reaches_to_the_nearest_unchanged_marked_frames():
    old = {0: BOTH, 10: BOTH, 20: BOTH}
    plan = plan_correction(old, {**old, 13: BOTH}, to_beginning=False)
    assert plan.spans == (Span(10, 20, (range(13, 10, -1), range(20, 13, -1))),)
    assert (plan.changed, plan.corrected, plan.kept) == ({1, 2}, {13}, {10})
    assert [index for index in range(30) if plan.is_tracked(index)] == list(range(11, 20))


def test_a_frame_without_the_corrected_object_does_not_end_a_correction():
    old = {0: BOTH, 10: {2: "b"}, 20: {1: "a"}}
    assert spans(old, {**old, 5: {1: "c"}}) == (Span(0, 20, (range(5, 0, -1), range(20, 5, -1))),)


def test_distant_corrections_are_separate_spans():
    old = dict.fromkeys((0, 10, 20, 30), BOTH)
    plan = plan_correction(old, {**old, 5: BOTH, 25: BOTH}, to_beginning=False)
    assert [(span.first, span.stop) for span in plan.spans] == [(0, 10), (20, 30)]
    assert not plan.is_tracked(15)
    assert plan.stop == 30


def test_two_corrections_between_the_same_frames_are_one_span():
    old = {0: BOTH, 10: BOTH}
    (span,) = spans(old, {**old, 4: BOTH, 7: BOTH})
    assert span == Span(0, 10, (range(4, 0, -1), range(7, 4, -1), range(10, 7, -1)))


def test_a_correction_after_the_last_mark_goes_on_to_the_end():
    (span,) = spans({0: BOTH}, {0: BOTH, 4: BOTH})
    assert (span.first, span.stop) == (0, None)


def test_a_new_object_is_tracked_from_where_it_is_marked():
    plan = plan_correction({0: BOTH}, {0: BOTH, 4: {3: "c"}}, to_beginning=False)
    assert plan.spans == (Span(4, None),)
    assert plan.changed == {3}
    plan = plan_correction({0: BOTH}, {0: BOTH, 4: {3: "c"}}, to_beginning=True)
    assert plan.spans == (Span(0, None, (range(4, 0, -1),)),)


def test_removing_a_mark_is_a_change():
    old = {0: BOTH, 4: BOTH, 9: BOTH}
    assert spans(old, {0: BOTH, 9: BOTH}) == (Span(0, 9, (range(9, 0, -1),)),)


def test_withdrawing_a_mark_tracks_all_objects_again():
    old = {0: BOTH, 4: {1: "c"}, 9: BOTH, 12: {2: "d"}, 20: BOTH}
    new = {index: marks for index, marks in old.items() if index != 4}
    plan = plan_correction(old, new, to_beginning=False, withdrawn={4})
    assert plan.spans == (Span(0, 9, (range(9, 0, -1),)),)
    assert plan.changed == {1, 2}


def test_withdrawing_the_mark_of_a_former_object_tracks_the_others_again():
    old = {0: {1: "a"}, 9: {1: "b"}}
    plan = plan_correction(old, old, to_beginning=False, withdrawn={4})
    assert (plan.spans, plan.changed) == ((Span(0, 9, (range(9, 0, -1),)),), {1})


def test_without_changes_nothing_is_tracked():
    plan = plan_correction({0: BOTH}, {0: BOTH}, to_beginning=False)
    assert (plan.spans, plan.stop) == ((), 0)


def test_each_object_and_point_has_its_own_digest():
    labels = np.array([[0, 1], [2, 2]], np.uint8)
    moved = np.array([[1, 0], [2, 2]], np.uint8)
    one, other = marked_objects({0: labels})[0], marked_objects({0: moved})[0]
    assert one.keys() == {1, 2}
    assert (one[1] == other[1], one[2] == other[2]) == (False, True)
    points = np.array([[1, 2], [np.nan, np.nan]], np.float32)
    assert marked_points({3: points})[3].keys() == {1}
    assert renumbered({3: {1: "a", 2: "b"}}, {2: 1}) == {3: {1: "b"}}


objects = st.dictionaries(st.integers(1, 3), st.sampled_from("ab"), min_size=1)
tracking = st.dictionaries(st.integers(0, 12), objects, min_size=1)


@settings(max_examples=300, deadline=None)
@given(old=tracking, new=tracking, to_beginning=st.booleans())
def test_every_change_is_tracked_and_unchanged_ends_are_not(old, new, to_beginning):
    plan = plan_correction(old, new, to_beginning=to_beginning)
    for index in {*old, *new}:
        if old.get(index) != new.get(index):
            assert plan.is_tracked(index)
    for one, other in zip(plan.spans, plan.spans[1:], strict=False):
        assert one.stop is not None
        assert one.stop <= other.first
    for span in plan.spans:
        assert span.stop is None or not plan.is_tracked(span.stop) or span.stop in plan.corrected
        indices = [index for backward_pass in span.backward for index in backward_pass]
        assert len(indices) == len(set(indices))
        assert all(span.first <= index for index in indices)
        assert all(span.stop is None or index <= span.stop for index in indices)
    assert all(old[index].get(n) == new[index].get(n) for index in plan.kept for n in plan.changed)


@pytest.mark.parametrize("to_beginning", [False, True])
@settings(max_examples=100, deadline=None)
@given(marked=tracking)
def test_a_new_tracking_covers_all_frames_from_the_first_mark_on(marked, to_beginning):
    plan = plan_tracking(marked, to_beginning=to_beginning)
    first = 0 if to_beginning else min(marked)
    assert [plan.is_tracked(index) for index in range(15)] == [i >= first for i in range(15)]
