"""The HTML report, opened in a browser as a reader would open it."""

import math
import re
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from corrflow import InputError
from corrflow.benchmarks import registry
from corrflow.benchmarks.davis import Davis
from corrflow.benchmarks.published import DATA_SETS, DAVIS_2016, DAVIS_2017
from corrflow.benchmarks.results import Result, SequenceResult
from corrflow.report import average_seeds, text_table, write_report
from corrflow.report.charts import POINTS, path, thinned
from corrflow.report.comparison import best_of, compare, labels
from corrflow.report.overlays import PAGE_BYTES, PICTURE_BYTES, picture_width
from corrflow.report.published_table import published_section

NAMES = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"]
TITLE = "A <b>title</b> & more"


class Joints(Davis):
    """A stand-in for a benchmark that scores points in percent, with the attributes that the report
    needs."""

    kind = "points"
    headline = ("PCK@0.1", "PCK@0.2")
    curves = ("PCK@0.1",)
    note = "Shares of points within a distance."

    def __init__(self):
        self.name = "joints"

    def figures(self, scores):
        return {
            name: float(np.nanmean([np.nanmean(score[name]) for score in scores.values()]))
            for name in self.headline
        }


@pytest.fixture(scope="module", autouse=True)
def joints():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.BENCHMARKS, "joints", Joints())
        patch.setitem(
            DATA_SETS, "davis2017", replace(DATA_SETS["davis2017"], sequences=tuple(NAMES))
        )
        yield


def make(out, name, level, benchmark="davis2017", names=tuple(NAMES), scored=True):
    """A result in which each sequence scores a little lower than the one before it. Each has two
    objects, one of which enters late."""
    rules = registry.find_benchmark(benchmark)
    measures, unit, undefined = (
        (("J", "F"), 1, [])
        if rules.curves == ("J", "F")
        else (rules.headline, 100, [math.nan, math.nan])
    )
    sequences = {}
    for n, sequence in enumerate(names):
        for t in range(6):
            write_overlay(out / name / "overlays" / sequence / f"{t:05d}.jpg", shade=20 * n)
        curve = [
            unit * (level - 0.05 * n + offset) for offset in (0.05, 0.03, 0.01, -0.01, -0.03, -0.05)
        ]
        objects = {f"{sequence}_1": curve, f"{sequence}_2": [*undefined, *curve[2:4]]}
        scores = (
            {key: dict.fromkeys(measures, values) for key, values in objects.items()}
            if scored
            else {}
        )
        sequences[sequence] = SequenceResult(
            10, 2.0, scores, rules.figures(scores) if scored else {}
        )
    result = Result(name, benchmark, "paper", out / name, {}, sequences, 3 * 2**29)
    return replace(result, overall=rules.figures(result.scores)) if scored else result


def write_overlay(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 36), (shade, 90, 160)).save(path)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A folder with a page of each kind."""
    out = tmp_path_factory.mktemp("pages")
    low, high = (
        make(out, "baseline", 0.5),
        make(out, "a-run-of-a-long-name-<i>such-as-people-give</i>", 0.8),
    )
    points = make(out, "joints", 0.7, "joints")
    kinds = {
        "one": [high],
        "two": [low, high],
        "points": [points],
        "unscored": [make(out, "dev", 0.5, scored=False)],
        "both": [low, high, points],
    }
    for name, results in kinds.items():
        write_report(out / f"{name}.html", TITLE, results)
    return out


@pytest.fixture
def visit(browser, pages):
    """Opens a page. After the test, the page must have requested nothing from the network and
    logged no message."""
    messages, requested, contexts = [], [], []

    def call(name, **options):
        contexts.append(
            browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        )
        page = contexts[-1].new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requested.append(request.url[:80]))
        page.goto((pages / f"{name}.html").as_uri())
        return page

    yield call
    for context in contexts:
        context.close()
    assert messages == []
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []


PAGES = ("one", "two", "points", "unscored", "both")


@pytest.mark.parametrize("name", PAGES)
def test_images_load_and_elements_have_accessible_names(visit, name):
    page = visit(name)
    assert page.title() == TITLE
    assert page.locator("h1").inner_text() == TITLE
    images = page.eval_on_selector_all(
        "img", "all => all.map(i => [i.naturalWidth > 0, i.alt.length > 0])"
    )
    assert len(images) >= 6 * 5
    assert all(loaded and named for loaded, named in images)
    assert page.eval_on_selector_all("svg", "all => all.every(s => s.getAttribute('aria-label'))")
    levels = page.eval_on_selector_all(
        "h1,h2,h3,h4,h5", "all => all.map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    keys = page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
    assert len(keys) == len(set(keys))
    links = page.eval_on_selector_all(
        "nav a", "all => all.map(a => a.getAttribute('href').slice(1))"
    )
    assert set(links) <= set(keys)


@pytest.mark.parametrize("name", PAGES)
def test_on_a_narrow_screen_tables_scroll_and_the_page_does_not(visit, name):
    page = visit(name, viewport={"width": 375, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") == 375


CONTRAST = """all => all.map(e => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => [0, 1, 2].map(i => linear(c[i] / 255))
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  let behind = e;
  const background = element => channels(getComputedStyle(element).backgroundColor);
  while (behind.parentElement && background(behind)[3] === 0) behind = behind.parentElement;
  const [a, b] = [light(channels(getComputedStyle(e).color)), light(background(behind))];
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_colour_schemes(visit, scheme):
    page = visit("two", color_scheme=scheme)
    red, *_ = map(
        int,
        re.findall(
            r"\d+", page.eval_on_selector("body", "e => getComputedStyle(e).backgroundColor")
        ),
    )
    assert red < 40 if scheme == "dark" else red > 240
    selectors = (
        "p, h1, h2, h3, h4, h5, td, th, th button, figcaption, li, .badge, .best, .source, nav a, "
        ".plot span"
    )
    assert min(page.eval_on_selector_all(selectors, CONTRAST)) >= 4.5


def column(page, part, index):
    return page.eval_on_selector_all(
        f"#davis2017-{part} tbody tr", f"rows => rows.map(r => r.cells[{index}].innerText.trim())"
    )


def test_clicking_a_column_name_sorts_the_table(visit):
    page = visit("one")
    assert column(page, "sequences", 0) == NAMES
    figure = page.locator("#davis2017-sequences thead th", has_text="J&F")
    figure.get_by_role("button").click()
    assert column(page, "sequences", 0) == NAMES
    assert figure.get_attribute("aria-sort") == "descending"
    figure.get_by_role("button").press("Enter")
    assert column(page, "sequences", 0) == NAMES[::-1]
    assert figure.get_attribute("aria-sort") == "ascending"
    page.locator("#davis2017-sequences thead button", has_text="sequence").click()
    assert column(page, "sequences", 0) == NAMES
    assert figure.get_attribute("aria-sort") is None


def test_rows_without_a_value_are_sorted_last(visit):
    page = visit("one")
    for _ in range(2):
        page.locator("#davis2017-published thead button", has_text="J recall").click()
        values = column(page, "published", 3)
        filled = [value for value in values if value != "–"]
        assert values == filled + ["–"] * (len(values) - len(filled))
    assert filled == sorted(filled, key=float)


def test_the_report_is_complete_without_javascript(visit):
    page = visit("two", java_script_enabled=False)
    assert page.locator("button").count() == 0
    assert page.locator("#davis2017-sequences tbody tr").count() == len(NAMES)
    assert page.locator("#davis2017-curves svg").count() == 2 * len(NAMES)


def test_overlays_show_the_best_and_the_worst_sequences(visit):
    page = visit("one")
    shown = page.eval_on_selector_all("#davis2017-overlays h5", "all => all.map(h => h.innerText)")
    assert shown == [*NAMES[:3], *NAMES[:-4:-1]]
    captions = page.eval_on_selector(
        "#davis2017-overlays .strip",
        "e => [...e.querySelectorAll('figcaption')].map(c => c.innerText)",
    )
    assert captions == ["00000", "00001", "00002", "00004", "00005"]


def test_runs_are_compared_with_the_first_run(visit):
    page = visit("two")
    assert (
        "better in 8 of 8 sequences, J&F +0.300 on average"
        in page.locator("#davis2017-sequences .finding").inner_text()
    )
    assert column(page, "sequences", 4) == ["+0.300"] * 8
    assert page.locator("#davis2017-sequences td:nth-child(4) .best").count() == 8
    assert page.locator("#davis2017-sequences td:nth-child(3) .best").count() == 0
    # two panels, for J and F, each with a line for each run
    assert page.locator("#davis2017-curves .chart").first.locator("path.mean").count() == 4
    assert "baseline mean 0.5" in page.locator("#davis2017-curves svg").first.get_attribute(
        "aria-label"
    )


def test_published_results_are_marked(visit):
    page = visit("two")
    rows = page.eval_on_selector_all(
        "#davis2017-published tbody tr", "all => all.map(r => [r.className, r.cells[0].innerText])"
    )
    kinds = {text.split("\n")[0]: (kind, text) for kind, text in rows}
    assert kinds["baseline"] == ("ours", "baseline\nmeasured here")
    assert kinds["CRW"] == ("", "CRW\npublished Jabri, Owens & Efros, NeurIPS 2020")
    assert "as reported in later papers" in kinds["DIFT"][1]
    assert len(rows) == 2 + len(DATA_SETS["davis2017"].published)
    assert page.locator("#davis2017-published .warning").count() == 0


def test_curves_in_percent_are_drawn_on_a_scale_up_to_100(visit):
    page = visit("points")
    assert page.locator("#joints-curves .y").first.inner_text() == "100"
    assert page.locator("#joints-published").count() == 0
    assert page.locator("#joints dl").inner_text().split("\n")[:2] == ["PCK@0.1", "52.5"]


def test_a_run_without_ground_truth_has_overlays_but_no_scores(visit):
    page = visit("unscored")
    assert "Nothing was scored" in page.locator("#davis2017 .warning").inner_text()
    headings = page.eval_on_selector_all("h3", "all => all.map(h => h.innerText)")
    assert headings == ["Overlays", "Sequence by sequence"]
    assert column(page, "sequences", 1) == ["10"] * 8


def test_each_benchmark_has_a_section_and_the_speed_table_covers_all(visit):
    page = visit("both")
    assert page.eval_on_selector_all("h2", "all => all.map(h => h.innerText)") == [
        "DAVIS-2017, validation",
        "joints",
        "Speed",
    ]
    speeds = page.eval_on_selector_all(
        "#speed tbody tr", "all => all.map(r => [...r.cells].map(c => c.innerText))"
    )
    assert speeds[0] == ["baseline", "davis2017", "paper", "8", "80", "16", "5.0", "1.50 GiB"]
    assert [row[1] for row in speeds] == ["davis2017", "davis2017", "joints"]


def test_the_text_report_has_a_table_for_each_benchmark(tmp_path):
    lines = text_table(
        [make(tmp_path, "a", 0.5), make(tmp_path, "points", 0.5, "joints")]
    ).splitlines()
    assert lines[0] == "davis2017"
    assert lines[1].split() == ["J&F", "J", "F", "95", "%", "interval", "frames/s", "memory"]
    figures = ["0.3250", "0.3250", "0.3250", "0.244", "to", "0.406"]
    assert lines[2].split() == ["a", *figures, "5.0", "1.50", "GiB"]
    assert lines[4] == "joints"
    assert lines[5].split() == ["PCK@0.1", "PCK@0.2", "95", "%", "interval", "frames/s", "memory"]


def shifted(result, gains):
    """The result with its headline figure raised by one of `gains` in each sequence."""
    column = "J&F-Mean"
    sequences = {
        name: replace(
            sequence, figures={**sequence.figures, column: sequence.figures[column] + gain}
        )
        for (name, sequence), gain in zip(result.sequences.items(), gains, strict=True)
    }
    overall = {**result.overall, column: result.overall[column] + np.mean(gains)}
    return replace(result, name=f"{result.name}-b", sequences=sequences, overall=overall)


def test_a_gain_is_more_than_chance_if_its_interval_excludes_zero(tmp_path):
    first = make(tmp_path, "a", 0.5)
    steady = [0.02, 0.03, 0.02, 0.01, 0.02, 0.03, 0.01, 0.02]
    one_lucky = [0.2, -0.01, -0.01, -0.01, 0.0, 0.0, -0.01, 0.0]
    for gains, verdict in ((steady, "more than chance"), (one_lucky, "may be chance")):
        lines = text_table([first, shifted(first, gains)]).splitlines()
        assert f"better in {sum(g > 0 for g in gains)} of 8 sequences" in lines[-1]
        assert verdict in lines[-1]


def test_an_overall_figure_that_is_not_a_mean_has_no_interval(tmp_path):
    result = make(tmp_path, "a", 0.5)
    (comparison,) = compare([replace(result, overall={**result.overall, "J&F-Mean": 0.5})])
    assert comparison.interval(comparison.runs[0]) is None
    (alone,) = compare([make(tmp_path, "one", 0.5, names=("alpha",))])
    assert alone.interval(alone.runs[0]) is None


def test_seeds_of_one_setting_are_shown_as_their_mean(tmp_path):
    low, high = make(tmp_path, "low", 0.4), make(tmp_path, "high", 0.6)
    (merged,) = average_seeds([low, high], 2)
    middle = make(tmp_path, "middle", 0.5)
    assert merged.name == "low, mean of 2 seeds"
    for column in ("J&F-Mean", "J-Mean", "J-Decay"):
        assert merged.overall[column] == pytest.approx(middle.overall[column])
    recalls = (low.overall["J-Recall"], high.overall["J-Recall"])
    assert merged.overall["J-Recall"] == pytest.approx(np.mean(recalls))
    for name, sequence in middle.sequences.items():
        assert merged.sequences[name].figures["J&F-Mean"] == pytest.approx(
            sequence.figures["J&F-Mean"]
        )
        for key, scores in sequence.scores.items():
            for measure, values in scores.items():
                averaged = merged.sequences[name].scores[key][measure]
                np.testing.assert_allclose(averaged, values)
    assert average_seeds([low, high], 1) == [low, high]


def test_only_seeds_of_one_setting_are_averaged(tmp_path):
    one = make(tmp_path, "one", 0.4)
    with pytest.raises(InputError, match="3 runs, seeds 2: expected as many runs of each"):
        average_seeds([one, one, one], 2)
    fewer = make(tmp_path, "fewer", 0.4, names=("alpha",))
    for other in (fewer, replace(one, protocol="memory"), make(tmp_path, "p", 0.5, "joints")):
        with pytest.raises(InputError, match="expected the benchmark, protocol, sequences"):
            average_seeds([one, other], 2)


def test_runs_with_equal_names_get_distinct_labels(tmp_path):
    one = make(tmp_path, "a", 0.5, names=("alpha",))
    memory = replace(one, protocol="memory")
    moved = replace(one, out=tmp_path / "b")
    assert labels([one, memory]) == ["a, paper", "a, memory"]
    assert labels([one, moved]) == [f"a, {tmp_path / 'a'}", f"a, {tmp_path / 'b'}"]


def test_a_run_without_figures_is_ranked_last(tmp_path):
    good = make(tmp_path, "good", 0.5)
    lost = replace(make(tmp_path, "lost", 0.4), overall=dict.fromkeys(good.overall, math.nan))
    for order in ([lost, good], [good, lost]):
        (comparison,) = compare(order)
        assert comparison.leader.label == "good"
        assert comparison.ranked == NAMES
        write_report(tmp_path / "r.html", "", order)
        page = (tmp_path / "r.html").read_text()
        assert "Best and worst sequences" in page
        section = page[
            page.index('id="davis2017-published"') : page.index('id="davis2017-overlays"')
        ]
        figures = re.findall(r'<td class="bar" data-value="([\d.]+)"', section)
        assert [float(value) for value in figures] == sorted(map(float, figures), reverse=True)
        assert len(figures) == 1 + len(DATA_SETS["davis2017"].published)
        assert section.rindex("lost") > section.rindex('<td class="bar"')


PUBLISHED_TITLE = "Compared with published results"


@pytest.mark.parametrize(
    ("benchmark", "names", "shown"),
    [
        ("davis2016", DAVIS_2016, True),
        ("davis2016", DAVIS_2017, False),
        ("davis2016", [f"scene-{n}" for n in range(20)], False),  # as many sequences, but others
        ("davis2016", DAVIS_2016[1:], False),
        ("jhmdb", [f"wave-{n}" for n in range(268)], True),
        ("jhmdb", [f"wave-{n}" for n in range(267)], False),
    ],
)
def test_published_results_are_shown_only_for_the_whole_data_set(tmp_path, benchmark, names, shown):
    figures = {"J&F-Mean": 0.5, "PCK@0.1": 0.5}
    sequences = {name: SequenceResult(10, 2.0, {}, {}) for name in names}
    result = Result("a", benchmark, "paper", tmp_path, figures, sequences, 1)
    (comparison,) = compare([result])
    assert (PUBLISHED_TITLE in published_section(comparison)) == shown
    assert published_section(*compare([replace(result, overall={})])) == ""


def test_davis_2017_has_30_sequences_that_include_the_20_of_davis_2016():
    assert (len(set(DAVIS_2016)), len(set(DAVIS_2017))) == (20, 30)
    assert set(DAVIS_2016) < set(DAVIS_2017)


def test_only_comparable_runs_are_shown_with_published_results(tmp_path):
    whole, part = (
        make(tmp_path, "whole", 0.5),
        make(tmp_path, "part", 0.6, names=("alpha", "bravo")),
    )
    reset = replace(make(tmp_path, "reset_gap", 0.9), reset_gap=5)
    section = published_section(*compare([part, whole, reset]))
    assert section.count("measured here") == 1
    assert re.search(r">whole <span class=\"source\">", section)
    assert published_section(*compare([part, reset])) == ""


def test_a_very_long_table_of_objects_is_folded(tmp_path, monkeypatch):
    monkeypatch.setattr("corrflow.report.tables.LONGEST", 3)
    write_report(tmp_path / "r.html", "", [make(tmp_path, "few", 0.5, names=("alpha", "bravo"))])
    assert "<details><summary>All 4 objects</summary>" in (tmp_path / "r.html").read_text()


def test_only_the_best_values_are_marked():
    assert best_of("J-Mean", [0.2, math.nan, 0.3, 0.3]) == {2, 3}
    assert (
        best_of("J-Decay", [0.2, 0.3])
        == best_of("J-Mean", [0.3])
        == best_of("J-Mean", [0.3, 0.3])
        == best_of("J-Mean", [math.nan] * 2)
        == set()
    )


def test_runs_on_different_sequences_give_a_warning(tmp_path):
    few = make(tmp_path, "few", 0.5, names=("alpha", "bravo"))
    write_report(
        tmp_path / "r.html", "", [few, make(tmp_path, "one", 0.6, names=("bravo", "india"))]
    )
    assert "The runs share 1 of 3 sequences" in (tmp_path / "r.html").read_text()
    assert compare([few])[0].leader.label == "few"


def test_a_curve_has_gaps_where_values_are_undefined():
    nan = math.nan
    drawn = path(np.array([1.0, 0.5, nan, 0.0, nan, 1.0, 1.0]), 1.0, 9, "mean")
    assert drawn == '<path class="c1 mean" d="M0,0.0L100,50.0M300,100.0h0M500,0.0L600,0.0"/>'


def test_a_long_curve_is_thinned_without_changing_its_mean():
    values = np.random.default_rng(0).random(10 * POINTS)
    assert len(thinned(values)) == POINTS
    assert thinned(values).mean() == pytest.approx(values.mean())


def test_pictures_shrink_when_there_are_many():
    assert picture_width(30, 1.0) == 480
    for count in (400, 1000):
        width = picture_width(count, 1.0)
        assert count * width * width * 9 / 16 * PICTURE_BYTES < 1.01 * PAGE_BYTES


def test_the_error_for_a_damaged_overlay_names_the_file(tmp_path):
    result = make(tmp_path, "a", 0.5, names=("alpha",))
    (tmp_path / "a/overlays/alpha/00000.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"overlay .*alpha/00000\.jpg: not a readable image"):
        write_report(tmp_path / "r.html", "", [result])
    shutil.rmtree(tmp_path / "a/overlays")
    write_report(tmp_path / "r.html", "", [result])
    assert "No overlays in" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize("name", sorted({*DATA_SETS} & {*registry.BENCHMARKS}))
def test_published_figures_include_the_benchmarks_headline_figure(name):
    headline = registry.find_benchmark(name).headline
    assert all(headline[0] in entry.figures for entry in DATA_SETS[name].published)
