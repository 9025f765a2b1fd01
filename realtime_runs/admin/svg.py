"""Pictures that a style sheet colours: shapes with classes, and no style of their own.

Along x everything is in percent, so that a picture is as wide as its place and its texts stay readable.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from realtime_runs.admin.timeline import Timeline

_CHART: Final = 160  # height in pixels
_TOP: Final = 10
_AXIS: Final = 22
_LANE: Final = 40


def _tag(name: str, content: Any = "", **attributes: Any) -> SafeString:
    """`text_anchor` is the attribute text-anchor, `class_` is class."""
    given = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    return format_html(
        "<{}{}>{}</{}>", SafeString(name), format_html_join("", ' {}="{}"', given), content, SafeString(name)
    )


def _join(parts: Iterable[SafeString]) -> SafeString:
    return format_html_join("", "{}", ((part,) for part in parts))


def _percent(value: float) -> str:
    return f"{value:.3f}%"


def _text(words: str, x: float, y: float, class_: str = "rr-tick", anchor: str = "start") -> SafeString:
    return _tag("text", words, x=_percent(x), y=f"{y:.0f}", class_=class_, text_anchor=anchor)


def _picture(parts: Iterable[SafeString], height: float, label: str) -> SafeString:
    return format_html(
        '<svg class="rr-svg" width="100%" height="{}" role="img" aria-label="{}">{}</svg>',
        *(f"{height:.0f}", label, _join(parts)),
    )


def draw_timeline(timeline: Timeline) -> SafeString:
    bottom = len(timeline.lanes) * _LANE + 6
    parts = []
    for percent, words in timeline.ticks:
        anchor = "start" if percent == 0 else "end" if percent == 100 else "middle"
        class_ = "rr-tick rr-tick-minor" if percent in (25, 75) else "rr-tick"
        parts.append(_tag("line", x1=f"{percent}%", x2=f"{percent}%", y1=0, y2=bottom, class_="rr-grid"))
        parts.append(_text(words, percent, bottom + 16, class_, anchor))
    for number, lane in enumerate(timeline.lanes):
        y = 6 + number * _LANE
        parts.append(_text(lane.label, 0, y + 12, "rr-lane"))
        if lane.end:
            parts.append(_text(lane.end, 100, y + 12, "rr-lane-end", "end"))
        for bar in lane.bars:
            place = {"x": _percent(bar.x), "y": y + 18, "width": _percent(bar.width), "height": 14, "rx": 3}
            parts.append(_tag("rect", _tag("title", f"{lane.label}: {bar.words}"), class_=f"rr-{bar.kind}", **place))
    return _picture(parts, bottom + _AXIS, f"Timeline: {timeline.summary}")


def draw_stacks(stacks: Sequence[Sequence[tuple[str, int]]], labels: Sequence[str], names: Sequence[str]) -> SafeString:
    """A bar for each minute, of (kind, how many) from the bottom. `labels`: its time. `names`: all of it in words."""
    highest = nice(max((sum(number for _, number in stack) for stack in stacks), default=0))
    parts = [*_grid(f"{highest:,.0f}"), *_times(labels)]
    width = 100 / max(len(stacks), 1)
    for position, stack in enumerate(stacks):
        y = float(_CHART)
        bars = []
        for kind, number in stack:
            height = (_CHART - _TOP) * number / highest
            y -= height
            place = {"x": _percent((position + 0.12) * width), "width": _percent(width * 0.76)}
            bars.append(_tag("rect", class_=f"rr-{kind}", y=f"{y:.2f}", height=f"{height:.2f}", **place))
        if bars:
            parts.append(_tag("g", _join([_tag("title", names[position]), *bars])))
    return _picture(parts, _CHART + _AXIS, "Runs by minute and status. The table below says the same.")


def draw_lines(
    lines: Sequence[tuple[str, Sequence[float | None]]],
    labels: Sequence[str],
    names: Sequence[str],
    in_words: Callable[[float], str],
) -> SafeString:
    """Points by minute, joined where one minute follows another."""
    highest = nice(max((value for _, points in lines for value in points if value is not None), default=0))
    parts = [*_grid(in_words(highest)), *_times(labels)]
    width = 100 / max(len(labels), 1)
    for kind, points in lines:
        places = [
            None
            if value is None
            else (_percent(width * (n + 0.5)), f"{_CHART - (_CHART - _TOP) * value / highest:.2f}")
            for n, value in enumerate(points)
        ]
        for one, other in pairwise(places):
            if one and other:
                parts.append(_tag("line", class_=f"rr-line rr-{kind}", x1=one[0], y1=one[1], x2=other[0], y2=other[1]))
        for place, name in zip(places, names, strict=True):
            if place:
                parts.append(_tag("circle", _tag("title", name), class_=f"rr-{kind}", cx=place[0], cy=place[1], r=2.5))
    return _picture(parts, _CHART + _AXIS, "Queue delay by minute. The table below says the same.")


def nice(value: float) -> float:
    """The next of …, 1, 2, 5, 10, 20, …, so that a chart does not jump with each change."""
    if value <= 0:
        return 1.0
    step = 1.0
    while step >= value:
        step /= 10
    while True:
        for factor in (1, 2, 5):
            if step * factor >= value:
                return step * factor
        step *= 10


def _grid(highest: str) -> list[SafeString]:
    lines = [_tag("line", x1="0%", x2="100%", y1=y, y2=y, class_="rr-grid") for y in (_TOP, _CHART)]
    return [*lines, _text(highest, 0, _TOP + 12)]


def _times(labels: Sequence[str]) -> list[SafeString]:
    if not labels:
        return []
    y = _CHART + 16
    middle = labels[len(labels) // 2]
    return [_text(labels[0], 0, y), _text(middle, 50, y, anchor="middle"), _text(labels[-1], 100, y, anchor="end")]
