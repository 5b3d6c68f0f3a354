import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.report.charts import Axis, Chart, Point, Series, line_chart, range_bar, swatch
from mstar.report.figures import share_axis
from mstar.report.markup import Html, el, join, json_script, number
from mstar.report.scale import Scale, duration, log_ticks, nice_ticks, percent, points, whole
from mstar.report.training import smoothed, thinned


def chart(*lines: Series) -> Chart:
    axis = Axis(label="x", low=0, high=2, ticks=((0, "0"), (1, "1"), (2, "2")))
    return Chart(label="a & b", series=lines, x=axis, y=axis)


def test_text_is_escaped_unless_it_is_html_already():
    assert el("p", "<b>", Html("<i>"), title='"<') == '<p title="&quot;&lt;">&lt;b&gt;<i></p>'
    assert join("&", None, ["<", 2.50]) == "&amp;&lt;2.5"


def test_attributes_that_are_false_are_left_out():
    assert (
        el("input", open=True, hidden=False, class_=None, aria_label="a")
        == '<input open aria-label="a">'
    )


def test_characters_that_html_forbids_are_replaced():
    assert el("p", "a\x00b\x1b") == "<p>a\ufffdb\ufffd</p>"


def test_data_for_scripts_cannot_close_its_element():
    text = json_script("x", {"a": "</script><!--&\u2028"})
    assert text.count("<") == 2
    assert "&" not in text
    assert "\u2028" not in text


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (1.005, "1"), (-0.001, "0"), (12.346, "12.35")]
)
def test_numbers_are_short(value: float, text: str):
    assert number(value) == text


@given(
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e6),
    st.floats(0, 1),
    st.floats(-500, 500),
    st.floats(1, 900),
)
def test_a_scale_keeps_proportions(
    low: float, width: float, share: float, start: float, length: float
):
    scale = Scale(low=low, high=low + width, start=start, end=start + length)
    assert scale(low + share * width) == pytest.approx(start + share * length, abs=1e-3 * length)


def test_a_scale_may_run_downwards_and_a_log_scale_halves_ratios():
    assert Scale(low=0, high=1, start=100, end=0)(0.25) == 75
    assert Scale(low=1, high=16, start=0, end=100, log=True)(4) == pytest.approx(50)


def test_a_scale_of_one_value_puts_it_in_the_middle():
    assert Scale(low=3, high=3, start=0, end=10)(3) == 5


@given(st.floats(-1e5, 1e5), st.floats(1e-4, 1e5), st.integers(2, 10))
def test_ticks_are_round_few_and_inside(low: float, width: float, count: int):
    ticks = nice_ticks(low, low + width, count)
    assert len(ticks) <= count + 1
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in ticks)
    assert ticks == sorted(set(ticks))


def test_logarithmic_ticks():
    assert log_ticks(0.1, 20) == [0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    assert log_ticks(1e-4, 100) == [1e-4, 1e-3, 0.01, 0.1, 1, 10, 100]


@given(st.lists(st.floats(0, 1), max_size=8))
def test_an_axis_of_shares_holds_them_and_stays_within_0_and_1(values: list[float]):
    axis = share_axis("share", values)
    assert 0 <= axis.low < axis.high <= 1
    assert all(axis.low - 1e-9 <= value <= axis.high + 1e-9 for value in values)


def test_numbers_as_words():
    assert percent(0.2041) == "20.4\u202f%"
    assert percent(None) == "–"
    assert points(-0.051) == "−5.1"
    assert whole(12345) == "12\u202f345"
    assert duration(59.94) == "59.9\u202fs"
    assert duration(200) == "3\u202fmin 20\u202fs"
    assert duration(7500) == "2\u202fh 05\u202fmin"


def test_a_chart_draws_a_line_a_band_and_a_note_for_each_point():
    line = Series(
        name="run",
        style=1,
        points=(Point(x=0, y=1, low=0.5, high=1.5, note="<first>"), Point(x=2, y=2, low=1, high=2)),
    )
    svg = line_chart(chart(line), 560, 300)
    assert svg.count('class="band s1"') == 1
    assert svg.count('class="line s1"') == 1
    assert "<title>&lt;first&gt;</title>" in svg
    assert 'aria-label="a &amp; b"' in svg


def test_one_point_alone_has_a_whisker_and_none_draws_nothing():
    alone = Series(name="run", style=0, points=(Point(x=1, y=1, low=0.5, high=1.5),))
    assert 'class="whisker s0"' in line_chart(chart(alone), 328, 240)
    assert 'class="line' not in line_chart(chart(Series(name="run", style=0, points=())), 328, 240)


def test_ticks_whose_texts_would_meet_are_left_out():
    axis = Axis(label="x", low=0, high=50, ticks=tuple((i, f"number {i}") for i in range(51)))
    flat = Axis(label="y", low=0, high=1, ticks=tuple((i / 50, str(i)) for i in range(51)))
    svg = line_chart(Chart(label="c", series=(), x=axis, y=flat), 328, 240)
    assert svg.count('class="tick middle"') < 8
    assert svg.count('class="tick end"') < 20


def test_every_style_has_a_marker_and_any_series_count_works():
    marks = {swatch(style) for style in range(6)}
    assert len(marks) == 6
    assert swatch(7)
    assert 'class="dot s2"' in range_bar(0.5, 0.4, 0.6, 2)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=300), st.integers(1, 50))
def test_a_thinned_loss_keeps_its_mean_span(losses: list[float], room: int):
    found = thinned(losses, room)
    assert len(found) == min(room, len(losses))
    assert all(0 < place < 1 for place, _ in found)
    assert all(min(losses) - 1e-9 <= loss <= max(losses) + 1e-9 for _, loss in found)


def test_a_smoothed_line_has_as_many_points():
    points = tuple(Point(x=i, y=float(i % 2)) for i in range(20))
    flat = smoothed(points)
    assert [point.x for point in flat] == list(range(20))
    assert all(0.3 < point.y < 0.7 for point in flat[4:-4])
