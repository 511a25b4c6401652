"""Charts as inline SVG: altair draws, vl-convert renders, so the page needs neither a script nor the network.

Colours are CSS variables of the page, so that one drawing serves light and dark. Every mark carries its figures as a tooltip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from xml.etree import ElementTree

from markupsafe import Markup

from lstm_trace.report.printable import printable

WIDTHS: Final = {"wide": 740, "narrow": 290}
"""Plot widths in pixels: every chart is drawn once for a desk and once for a phone, where one scaled down could not be read."""
SERIES: Final = ("var(--baseline)", "var(--candidate)", "var(--third)", "var(--fourth)")
LETTER: Final = 8
"""Pixels that a letter of a label takes."""
_SVG: Final = "http://www.w3.org/2000/svg"
_ALLOWED: Final = {f"{{{_SVG}}}{name}" for name in ("svg", "g", "path", "rect", "text", "line", "circle", "title", "defs", "clipPath")}
Row = Mapping[str, Any]


def both(draw: Callable[[int], Any]) -> Markup:
    """Draw a chart at both widths; the page's style shows one of them."""
    return Markup("").join(Markup('<div class="chart {}">{}</div>').format(name, svg(draw(width), width)) for name, width in WIDTHS.items())


def svg(chart: Any, width: int) -> Markup:
    """Render an altair chart to an SVG element that holds shapes, text and tooltips and nothing else."""
    import vl_convert

    drawing = vl_convert.vegalite_to_svg(_styled(chart).to_json(), vl_version=_version())
    root = ElementTree.fromstring(drawing)  # made by vl-convert a line above, from our own specification
    for parent in root.iter():
        for child in list(parent):
            if child.tag not in _ALLOWED:
                parent.remove(child)
        for name in list(parent.attrib):
            if name.lower().startswith("on") or name.endswith("href"):
                del parent.attrib[name]
        if parent.get("role") == "graphics-symbol" and parent.get("aria-label") and not len(parent):
            title = ElementTree.SubElement(parent, f"{{{_SVG}}}title")
            title.text = parent.get("aria-label")
    root.attrib.pop("width", None)
    root.attrib.pop("height", None)
    root.set("style", f"max-width:{width + 90}px")
    ElementTree.register_namespace("", _SVG)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _version() -> str:
    from altair.vegalite import SCHEMA_VERSION

    return str(SCHEMA_VERSION).removeprefix("v").rsplit(".", 1)[0]


def _styled(chart: Any) -> Any:
    ink, faint = "var(--ink)", "var(--line)"
    font = "system-ui, sans-serif"
    return (
        chart.configure(background="transparent", font=font, padding={"left": 16, "right": 12, "top": 4, "bottom": 4})
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=ink, titleColor="var(--dim)", gridColor=faint, domainColor=faint, tickColor=faint, labelFontSize=12,
            titleFontSize=12, titleFontWeight="normal", labelLimit=160,
        )
    )  # fmt: skip


def _data(rows: Sequence[Row]) -> Any:
    import altair as alt

    # Strings are freed of control characters here: they become tooltips.
    plain = [{name: printable(value, 200) if isinstance(value, str) else value for name, value in row.items()} for row in rows]
    return alt.Data(values=plain)


def _colour(releases: Sequence[str]) -> Any:
    import altair as alt

    # The page writes the legend: in the drawing a name takes the room that its renderer's font needs, not that of the reader's.
    return alt.Color("release:N", scale=alt.Scale(domain=list(releases), range=list(SERIES[: len(releases)])), legend=None)


def _cohort(cohorts: Sequence[str], width: int) -> Any:
    """The axis of cohorts, its labels aslant where they would overlap."""
    import altair as alt

    fits = max(map(len, cohorts), default=1) * LETTER * len(cohorts) < width
    axis = alt.Axis(labelAngle=0) if fits else alt.Axis(labelAngle=-60, labelLimit=110, titlePadding=16)
    return alt.X("cohort:N", sort=list(cohorts), title="sequence length, steps", axis=axis)


def cohort_rates(rows: Sequence[Row], releases: Sequence[str], cohorts: Sequence[str], width: int) -> Any:
    """Fail rate a cohort and release with its interval. Rows: cohort, release, rate, low, high, tip.

    Here and below ``releases`` and ``cohorts`` are the names that the rows have, in the order in which they are drawn.
    """
    import altair as alt

    # The highest interval decides the scale, at least 10 %: a quiet page must not look alarming.
    top = max([0.1, *(row["high"] for row in rows)])
    base = alt.Chart(_data(rows)).encode(
        x=_cohort(cohorts, width),
        xOffset=alt.XOffset("release:N", sort=list(releases)),
        color=_colour(releases),
        description="tip:N",
    )
    scale = alt.Scale(domain=[0, min(1.0, top * 1.05)])
    bars = base.mark_rule(strokeWidth=2).encode(
        y=alt.Y("low:Q", title="fail rate", axis=alt.Axis(format="%", tickCount=5), scale=scale), y2="high:Q"
    )
    points = base.mark_point(filled=True, size=70, opacity=1).encode(y=alt.Y("rate:Q", scale=scale))
    return (bars + points).properties(width=width, height=240)


def contributions(rows: Sequence[Row], width: int) -> Any:
    """What each component added. Rows: component, pp, low, high, flagged, tip."""
    import altair as alt

    order = [row["component"] for row in rows]
    colour = alt.condition("datum.flagged", alt.value("var(--bad)"), alt.value("var(--dim)"))
    base = alt.Chart(_data(rows)).encode(y=alt.Y("component:N", sort=order, title=None), description="tip:N", color=colour)
    zero = alt.Chart(alt.Data(values=[{"x": 0}])).mark_rule(color="var(--ink)", strokeDash=[3, 3]).encode(x="x:Q")
    bars = base.mark_rule(strokeWidth=3).encode(
        x=alt.X("low:Q", title="percentage points added to the fail rate", axis=alt.Axis(tickCount=6)), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=90, opacity=1).encode(x="pp:Q")
    return (zero + bars + points).properties(width=width, height=34 * len(rows))


def distribution(rows: Sequence[Row], releases: Sequence[str], width: int) -> Any:
    """Share of predictions by confidence. Rows: release, at (lower edge of a twentieth), share, tip."""
    import altair as alt

    base = alt.Chart(_data(rows)).encode(
        x=alt.X("at:Q", title="confidence", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5, format=".1f")),
        y=alt.Y("share:Q", title="share of predictions", axis=alt.Axis(format="%", tickCount=4), stack=None),
        color=_colour(releases),
        description="tip:N",
    )
    # Transparent points carry the tooltips; a line has only one.
    points = base.mark_point(size=60, filled=True).encode(opacity=alt.value(0))
    return (base.mark_line(interpolate="step-after", strokeWidth=2) + points).properties(width=width, height=200)


def reliability(rows: Sequence[Row], releases: Sequence[str], width: int) -> Any:
    """Accuracy against confidence. Rows: release, confidence, accuracy, n, tip."""
    import altair as alt

    ideal = alt.Chart(alt.Data(values=[{"x": 0, "y": 0}, {"x": 1, "y": 1}])).mark_line(color="var(--line)", strokeDash=[4, 4])
    base = alt.Chart(_data(rows)).encode(
        x=alt.X("confidence:Q", title="confidence", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5, format=".1f")),
        y=alt.Y("accuracy:Q", title="share that was right", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5, format=".0%")),
        color=_colour(releases),
        description="tip:N",
    )
    points = base.mark_point(filled=True, opacity=1).encode(size=alt.Size("n:Q", legend=None, scale=alt.Scale(range=[20, 180])))
    return (ideal.encode(x="x:Q", y="y:Q") + base.mark_line(strokeWidth=1.5) + points).properties(width=width, height=240)


def latencies(rows: Sequence[Row], releases: Sequence[str], cohorts: Sequence[str], width: int) -> Any:
    """Median and 99th percentile of the component a cohort, milliseconds. Rows: release, cohort, ms, quantile, tip."""
    import altair as alt

    base = alt.Chart(_data(rows)).encode(
        x=_cohort(cohorts, width),
        y=alt.Y("ms:Q", title="component, ms"),
        color=_colour(releases),
        strokeDash=alt.StrokeDash("quantile:N", sort=["p50", "p99"], scale=alt.Scale(range=[[1, 0], [5, 4]]), legend=None),
        description="tip:N",
    )
    return (base.mark_line(strokeWidth=2) + base.mark_point(filled=True, size=40, opacity=1)).properties(width=width, height=200)


def step_rates(rows: Sequence[Row], releases: Sequence[str], width: int) -> Any:
    """Fail rate by step of the trajectory. Rows: release, step, rate, low, high, tip."""
    import altair as alt

    base = alt.Chart(_data(rows)).encode(
        x=alt.X("step:O", title="step of the trajectory", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("release:N", sort=list(releases)),
        color=_colour(releases),
        description="tip:N",
    )
    bars = base.mark_rule(strokeWidth=2).encode(
        y=alt.Y("low:Q", title="steps that failed", axis=alt.Axis(format="%", tickCount=4)), y2="high:Q"
    )
    return (bars + base.mark_point(filled=True, size=60, opacity=1).encode(y="rate:Q")).properties(width=width, height=200)
