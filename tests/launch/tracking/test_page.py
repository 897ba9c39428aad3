"""Tests the page of launch/track.py in a real browser: choose a video, click, drag, paint, track,
and play the result."""

import builtins
import csv
import json
import re
import signal
import socket
import subprocess
import sys
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import ROOT, TIMEOUT_SECONDS
from PIL import Image
from test_track import HEIGHT, SQUARE, WIDTH, checkpoint, write_labelme, write_video

from corrflow import InputError
from launch.tracking.marking import correct, paint, read_marks
from launch.tracking.prompts import VideoInfo, read_masks

__all__ = ["checkpoint"]  # a fixture
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def server(checkpoint):
    """The page's address, as the command prints it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [
        sys.executable,
        str(ROOT / "launch/track.py"),
        "--browser",
        "--checkpoint",
        str(checkpoint),
        "--device",
        "cpu",
    ]
    line += ["--port", str(port), "--protocol", "identity", "--size", "0"]
    # tests in the background of a shell ignore Ctrl-C, and the process would inherit that
    process = subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    output = process.stdout.readline() + process.stdout.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+", output)
    assert address, output
    yield address[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=TIMEOUT_SECONDS) == 0


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    # browsers don't play this format
    return write_video(tmp_path_factory.mktemp("video") / "my.mkv")


@pytest.fixture
def page(browser, server, video):
    """The page with a chosen video. Errors on it and requests to other hosts fail the test."""
    # high enough to show everything
    page = browser.new_page(viewport={"width": 1280, "height": 1200})
    page.set_default_timeout(1000 * TIMEOUT_SECONDS)
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: problems.append(message.text) if message.type == "error" else None,
    )
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((server, "data:", "blob:"))
            else problems.append(request.url)
        ),
    )
    page.goto(server)
    page.set_input_files("#video input[type=file]", video)
    page.wait_for_function(f"document.querySelector('#marks canvas.frame')?.width === {WIDTH}")
    yield page
    page.close()
    assert not problems


def at(page, x, y):
    """Convert a position in the video to one on the screen."""
    box = page.locator("#marks canvas.frame").bounding_box()
    return box["x"] + (x + 0.5) / WIDTH * box["width"], box["y"] + (y + 0.5) / HEIGHT * box[
        "height"
    ]


def drag(page, start, end):
    page.mouse.move(*at(page, *start))
    page.mouse.down()
    page.mouse.move(*at(page, *end), steps=4)
    page.mouse.up()


def track_and_download(page, suffix, tmp_path):
    """Track, play the resulting video, and download a file of the result."""
    page.click("#start")
    page.wait_for_selector("#result video")
    playing = (
        "async () => { const v = document.querySelector('#result video');"
        " await v.play(); return [v.videoWidth, v.error] }"
    )
    assert page.evaluate(playing) == [WIDTH + 1, None]
    return download_file(page, suffix, tmp_path)


def download_file(page, suffix, tmp_path):
    """Download a file of the result."""
    with page.expect_download() as download:
        page.locator(f"#files a[download$='{suffix}']").first.click()
    download.value.save_as(tmp_path / f"got{suffix}")
    return tmp_path / f"got{suffix}"


def test_clicked_points_are_tracked_and_written_to_the_table(page, tmp_path):
    for position in ((15, 20), (50, 40), (30, 30)):
        page.mouse.click(*at(page, *position))
    page.click("[data-act=undo]")
    with track_and_download(page, ".csv", tmp_path).open() as file:
        rows = list(csv.DictReader(file))
    assert [(float(row["x"]), float(row["y"])) for row in rows[:2]] == [(15, 20), (50, 40)]
    assert len(rows) == 7 * 2
    assert "Tracked 7 frames" in page.inner_text("#message")


def test_boxes_on_a_later_frame_are_tracked_backwards(page, tmp_path):
    page.locator("#frame input[type=number]").fill("4")
    page.locator("#frame input[type=number]").press("Enter")
    page.click("[data-mode=box]")
    page.wait_for_timeout(1000)
    drag(page, (40, 30), (20, 10))  # a box may begin at any corner
    page.locator("#backward input").check()
    page.locator("#names textarea, #names input").fill("wolf")
    with track_and_download(page, ".csv", tmp_path).open() as file:
        rows = list(csv.DictReader(file))
    assert [rows[4][name] for name in ("x0", "y0", "x1", "y1")] == ["20", "10", "41", "31"]
    assert int(rows[0]["area"]) > 0
    assert {row["name"] for row in rows} == {"wolf"}


def test_objects_are_painted_and_erased_in_a_narrow_window(page, tmp_path):
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.click("[data-mode=mask]")
    page.locator("[name=size]").fill("6")
    drag(page, (10, 10), (30, 10))
    page.click("[data-object='2']")
    drag(page, (10, 30), (50, 30))
    page.click("[data-object='0']")
    drag(page, (40, 30), (60, 30))
    with zipfile.ZipFile(track_and_download(page, ".zip", tmp_path)) as packed:
        first = np.asarray(Image.open(packed.open("00000.png")))
    assert (first[10, 20], first[30, 20], first[30, 45], first[20, 20]) == (1, 2, 0, 0)


def click_timeline(page, frame, count=7):
    """Click on a frame of the timeline, and wait until it is shown."""
    box = page.locator("#marks canvas.timeline").bounding_box()
    position = box["x"] + (frame + 0.5) / count * box["width"], box["y"] + box["height"] / 2
    page.mouse.click(*position)
    wait_for_frame(page, frame)


def wait_for_frame(page, frame):
    field = "document.querySelector('#frame input[type=number]').value"
    page.wait_for_function(f"{field} === '{frame}'")
    page.wait_for_timeout(500)


def masks_of(path):
    with zipfile.ZipFile(path) as packed:
        return [np.asarray(Image.open(packed.open(name))) for name in sorted(packed.namelist())]


@pytest.mark.parametrize("width", [375, 1280])
def test_tracked_masks_are_corrected_by_painting_over_them(page, tmp_path, width):
    page.set_viewport_size({"width": width, "height": 1200})
    page.click("[data-mode=mask]")
    page.locator("[name=size]").fill("6")
    drag(page, (10, 10), (30, 10))
    page.click("[data-object='2']")
    drag(page, (10, 30), (50, 30))
    before = masks_of(track_and_download(page, ".zip", tmp_path))
    page.wait_for_selector("#marks canvas.timeline:visible")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    click_timeline(page, 4)
    page.click("[data-object='0']")
    drag(page, (40, 30), (60, 30))
    track_twice(page)
    after = masks_of(download_file(page, ".zip", tmp_path))
    assert (before[4][30, 45], after[4][30, 45], after[4][30, 20]) == (2, 0, 2)
    assert (after[5][30, 45], after[5][10, 20]) == (0, 1)
    assert np.array_equal(after[0], before[0])
    # the frame is shown with the corrected masks
    click_timeline(page, 6)
    pixel = "document.querySelector('#marks canvas.frame').getContext('2d').getImageData"
    erased, kept = (page.evaluate(f"[...{pixel}({x}, 30, 1, 1).data]") for x in (45, 20))
    assert kept[1] > erased[1] + 30


def test_keys_choose_objects_undo_marks_and_change_the_frame(page):
    page.mouse.click(*at(page, 15, 20))
    page.click("[data-mode=mask]")
    drag(page, (10, 10), (30, 10))
    pressed = "n => document.querySelector(`[data-object='${n}']`).ariaPressed"
    for key, number in (("3", 3), ("e", 0)):
        page.keyboard.press(key)
        page.wait_for_function(f"({pressed})({number}) === 'true'")
    page.keyboard.press("ArrowRight")
    wait_for_frame(page, 1)
    assert "Marks on 1 other frame are kept" in page.inner_text("#marks .hint")
    page.locator("#marks canvas.frame").focus()
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    page.wait_for_function("document.querySelector('[data-mode=points]').ariaPressed === 'true'")
    page.click("#start")
    page.get_by_text("nothing is marked").first.wait_for()


def upload_labels(page, path):
    """Upload a labels file with a square."""
    page.get_by_text("Labels of another tool").click()
    page.set_input_files("#labels input[type=file]", write_labelme(path, [{"points": SQUARE}]))
    page.locator("#labels").get_by_text(path.stem).first.wait_for()


def track_twice(page):
    """Track with the strokes over frame 4, and then again with the same strokes. They must not
    change anything the second time, although the masks below them have changed."""
    for unchanged in (1, 7):
        page.click("#start")
        page.get_by_text(f"{unchanged} of them unchanged").wait_for()


def test_tool_labels_are_tracked_and_written_in_a_tool_format(page, tmp_path):
    upload_labels(page, tmp_path / "frame_000002.json")
    page.locator("#formats").get_by_label("cvat").check()
    tracks = (
        ElementTree.parse(track_and_download(page, ".xml", tmp_path)).getroot().findall("track")
    )
    assert [track.get("label") for track in tracks] == ["square"]
    assert [int(shape.get("frame")) for shape in tracks[0]] == [2, 3, 4, 5, 6]
    assert "Tracked 7 frames" in page.inner_text("#message")


def test_masks_tracked_from_labels_are_corrected_by_painting(page, tmp_path):
    upload_labels(page, tmp_path / "frame_000000.json")
    before = masks_of(track_and_download(page, ".zip", tmp_path))
    page.wait_for_selector("#marks canvas.timeline:visible")
    click_timeline(page, 4)
    page.click("[data-mode=mask]")
    page.locator("[name=size]").fill("6")
    drag(page, (40, 30), (60, 30))
    track_twice(page)
    after = masks_of(download_file(page, ".zip", tmp_path))
    assert [mask[30, 50] for mask in before] == [0] * 7
    assert (after[0][30, 50], after[4][30, 50], after[6][30, 50]) == (0, 1, 1)
    page.click("[data-object='2']")
    drag(page, (40, 40), (60, 40))
    page.click("#start")
    page.get_by_text("has object 2: expected some of 1").first.wait_for()
    # once all strokes are undone, their corrections disappear
    page.click("[data-act=clear]")
    page.click("#start")
    page.get_by_text("Tracked 7 frames.").wait_for()
    assert np.array_equal(masks_of(download_file(page, ".zip", tmp_path))[4], before[4])


def test_starting_without_marks_shows_an_error_on_the_page(page):
    page.click("#start")
    page.get_by_text("nothing is marked").first.wait_for()


def test_a_taken_port_is_refused_with_one_line(refused, server, checkpoint):
    port = server.rpartition(":")[2]
    assert f"port {port}: is taken" in refused(
        "track", "--browser", "--checkpoint", checkpoint, "--port", port
    )


def test_the_error_for_missing_gradio_says_how_to_install_it(refused, checkpoint, monkeypatch):
    real_import = builtins.__import__

    def import_without_gradio(name, *rest, **named):
        if name.partition(".")[0] == "gradio":
            raise ModuleNotFoundError("no gradio", name="gradio")
        return real_import(name, *rest, **named)

    monkeypatch.delitem(sys.modules, "launch.tracking.page", raising=False)
    monkeypatch.delitem(sys.modules, "launch.tracking.marking", raising=False)
    monkeypatch.setattr(builtins, "__import__", import_without_gradio)
    assert "the page needs gradio: pip install 'gradio>=6.31'" in refused(
        "track", "--browser", "--checkpoint", checkpoint
    )


def test_strokes_mark_only_the_tracked_objects_that_they_change():
    tracked = np.zeros((20, 40), np.uint8)
    tracked[2:8, 2:12], tracked[2:8, 20:30], tracked[12:18, 2:12] = 1, 2, 3
    nothing = np.zeros_like(tracked)
    erased = [{"object": 0, "radius": 2, "path": [[10, 4]]}]
    labels, gone = correct(tracked, nothing, erased)
    assert (set(np.unique(labels)), labels[4, 10], labels[4, 4]) == ({0, 1}, 0, 1)
    assert not gone
    assert not correct(tracked, nothing, [])[0].any()
    # a stroke that changes no pixel is still a mark
    repeated = [{"object": 2, "radius": 1, "path": [[24, 4]]}]
    assert np.array_equal(correct(tracked, nothing, repeated)[0], np.where(tracked == 2, 2, 0))
    boxed = nothing.copy()
    boxed[12:15, 20:30] = 4
    assert set(np.unique(correct(None, boxed, [])[0])) == {0, 4}


def test_a_completely_erased_object_is_gone(tmp_path):
    found = np.zeros((40, 60), np.uint8)
    found[5:15, 5:15], found[20:30, 40:50] = 1, 2
    erase = {"frame": 4, "object": 0, "radius": 30, "path": [[10, 10]]}
    painted = [
        {"frame": 0, "object": number, "radius": 4, "path": [[x, y]]}
        for number, x, y in ((1, 10, 10), (2, 45, 25))
    ]
    marks = {"mode": "mask", "width": 60, "height": 40, "box": [], "mask": [*painted, erase]}
    tracked = {0: None, 4: np.where(found == 1, found, 0)}
    prompts = read_marks(json.dumps(marks), tmp_path, tracked.get)
    assert (len(prompts.mask), prompts.gone) == (1, ("4=1",))
    # in a frame that was not tracked, no object can become absent
    tracked[4] = None
    assert read_marks(json.dumps(marks), tmp_path, tracked.get).gone == ()


def test_boxes_and_strokes_can_be_combined(tmp_path):
    box = {"frame": 0, "x0": 2, "y0": 3, "x1": 12, "y1": 13}
    stroke = {"frame": 5, "object": 1, "radius": 2, "path": [[20, 10]]}
    marks = {"mode": "box", "width": 40, "height": 20, "points": [], "box": [box], "mask": [stroke]}
    prompts = read_marks(json.dumps(marks), tmp_path)
    masks = read_masks(prompts, VideoInfo(40, 20, 8))
    assert list(masks) == [0, 5]
    assert (masks[0][5, 5], masks[5][10, 20]) == (1, 1)
    assert read_marks(json.dumps({**marks, "mask": []}), tmp_path).box == ("0=2,3,12,13",)
    around = {**box, "x0": 0, "y0": 0, "x1": 20, "y1": 18}
    prompts = read_marks(json.dumps({**marks, "box": [box, around]}), tmp_path)
    masks = read_masks(prompts, VideoInfo(40, 20, 8))
    assert (masks[0][5, 5], masks[0][1, 1]) == (1, 2), (
        "the smaller box lies on top, though it came first"
    )


def test_strokes_are_round_and_later_ones_cover_earlier_ones(tmp_path):
    strokes = [
        {"object": 1, "radius": 3, "path": [[10, 10], [20, 10]]},
        {"object": 0, "radius": 2, "path": [[20, 10]]},
    ]
    labels = paint(strokes, np.zeros((20, 40), np.uint8))
    assert (labels[10, 8], labels[7, 7], labels[13, 15], labels[10, 20], labels[10, 17]) == (
        1,
        0,
        1,
        0,
        1,
    )
    with pytest.raises(InputError, match="nothing is marked"):
        read_marks("", tmp_path)
