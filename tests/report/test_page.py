"""The page: one file, no script, no network, hostile strings as text, and it opens in a real browser on a desk and on a phone."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from lstm_trace.analyse.onetrace import Score
from lstm_trace.errors import BadInput
from lstm_trace.report.content import gather
from lstm_trace.report.page import LIMIT_BYTES, render, write
from lstm_trace.store import store_of
from tests.analyse.incidents import Ids, World, rows, simulate

HOSTILE = "</style><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\x1b[2J\u202e{{7*7}}"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def made(hostile=False):
    random, ids = np.random.default_rng(13), Ids()
    v1, v2 = simulate(World(), 500, random), simulate(replace(World(), classifier=(0.03, 0.03, 0.03, 0.1, 0.8)), 500, random)
    found = [*rows(v1, "v1", ids), *rows(v2, HOSTILE if hostile else "v2", ids)]
    if hostile:
        for row in found:
            row["name"] = HOSTILE
            for name in ("model", "label", "branch", "cohort", "evaluation_explanation"):
                if row.get(name):
                    row[name] = f"{row[name]}{HOSTILE}"
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with store_of(made()) as store:
        return write(store, tmp_path_factory.mktemp("page") / "report.html", trace_url="http://localhost:16686/trace/{trace_id}")


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory):
    with store_of(made(hostile=True)) as store:
        return write(store, tmp_path_factory.mktemp("page") / "report.html")


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag


def test_the_verdict_comes_first_and_every_part_is_there(page):
    text = page.read_text()
    parts = [
        "verdict",
        "cohorts",
        "contributions",
        "where",
        "notes",
        "confidence",
        "reliability",
        "latency",
        "steps",
        "drift",
        "traces",
        "table",
    ]
    places = [text.index(f'id="{part}"') for part in parts]
    assert places == sorted(places)
    assert "Classifier made it worse" in text
    assert re.search(r'href="http://localhost:16686/trace/[0-9a-f]{32}"', text)


@pytest.mark.parametrize("which", ["page", "hostile_page"])
def test_it_asks_for_nothing_and_runs_nothing(which, request):
    path = request.getfixturevalue(which)
    elements = Elements(path.read_text()).found
    assert not {tag for tag, _ in elements} & {"script", "img", "iframe", "object", "embed", "link", "form", "foreignobject", "base"}
    for tag, attributes in elements:
        assert not [name for name in attributes if name.startswith("on") or name in {"src", "srcset", "action", "xlink:href"}], tag
        assert attributes.get("href", "http://localhost:16686/").startswith("http://localhost:16686/")
    assert path.stat().st_size < LIMIT_BYTES
    assert "default-src 'none'" in path.read_text()


def test_hostile_strings_are_shown_as_text(hostile_page):
    text = hostile_page.read_text()
    assert "&lt;script&gt;" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "{{7*7}}" in text


def test_one_release_and_no_evaluations_make_a_page_too(tmp_path):
    bare = [row for row in made() if row["release"] == "v1" and not row.get("evaluation_name")]
    with store_of(bare) as store:
        text = write(store, tmp_path / "bare.html").read_text()
    assert "No comparison" in text
    assert "there is nothing to compare it with" in text


def test_a_step_that_few_traces_reached_is_not_charted(tmp_path):
    found = made()
    late = [row | {"span_id": f"{index:016x}", "step": 9} for index, row in enumerate(found[:56:7], start=1 << 40)]
    with store_of([*found, *late]) as store:
        text = write(store, tmp_path / "report.html").read_text()
    assert "step 3:" in text
    assert "step 9:" not in text


def test_a_wrong_link_is_named_before_anything_is_read(tmp_path):
    with pytest.raises(BadInput, match=r"--trace-url 'javascript:x\{trace_id\}'"):
        write(None, tmp_path / "report.html", trace_url="javascript:x{trace_id}")


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with store_of(made()[:10]) as store, pytest.raises(BadInput, match="cannot be written"):
        write(store, tmp_path / "file" / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.real
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_real_browser_shows_it(page, hostile_page, tmp_path, width):
    assert "<title>lstm-trace report: v1 against v2</title>" in browse(page, tmp_path, width)
    found = browse(hostile_page, tmp_path, width)
    assert "<title>lstm-trace report: &lt;/style&gt;" in found  # a script would have set it to `owned`
    assert 'id="verdict"' in found


def browse(path, tmp_path, width):
    """The document after the browser has laid it out and run what it would run."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
    ]
    command += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / f'{path.parent.name}{width}'}"]
    command += [f"--window-size={width},1600", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout


def test_without_a_second_release_the_worst_traces_are_shown_first():
    """Lowest score, then lowest confidence, then longest; equal ones in the order of their ids."""
    random, ids = np.random.default_rng(5), Ids()
    outcomes = simulate(World(), 60, random)
    made = list(rows(outcomes, "v1", ids))
    for row in made:
        if row.get("evaluation_name") == "answer_quality" and row["evaluation_score"] == 0.0:
            row["evaluation_score"] = 0.25
    judged = [row for row in made if row.get("evaluation_name") == "answer_quality" and row["evaluation_label"] == "fail"]
    judged[-1]["evaluation_score"] = 0.1
    order = {f"{1 + 5 * i:032x}": (outcomes.confidence[i], -outcomes.length[i]) for i in range(60)}
    rest = sorted((row["target_trace_id"] for row in judged[:-1]), key=lambda trace: (*order[trace], trace))
    with store_of(made) as store:
        assert [trace.trace_id for trace in gather(store).worst] == [judged[-1]["target_trace_id"], *rest[:2]]


def test_a_disk_that_fills_leaves_no_half_of_a_page(tmp_path):
    """The file is limited to 4 kB, as on a disk that fills while the page is written."""
    resource = pytest.importorskip("resource")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with store_of(made()) as store:
        content = gather(store)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lstm_trace.report.page.gather", lambda *_, **__: content)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
            try:
                with pytest.raises(BadInput, match="cannot be written"):
                    write(store, tmp_path / "report.html")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_releases_that_differ_only_at_their_end_are_two_in_every_chart(tmp_path):
    image = f"registry.example.com/team/claims-agent@sha256:{'0123456789abcdef' * 4}"
    found = [row | ({"release": image + row["release"]} if row.get("release") else {}) for row in made()]
    with store_of(found) as store:
        text = write(store, tmp_path / "report.html").read_text()
    drawn = {colour for colour in ("var(--baseline)", "var(--candidate)") if f'stroke="{colour}"' in text.split('id="confidence"')[1]}
    assert drawn == {"var(--baseline)", "var(--candidate)"}
    legend = re.findall(r'<span class="series\d"[^>]*>([^<]+)</span>', text)[:2]
    assert [name[-4:] for name in legend] == ["efv1", "efv2"]


def test_of_hundreds_of_cohorts_those_with_most_calls_are_drawn(tmp_path):
    found = made()
    for place, row in enumerate(found):
        if row.get("cohort") and place % 3:
            row["cohort"] = f"{place}-{place}"
    with store_of(found) as store:
        text = write(store, tmp_path / "report.html").read_text()
    assert re.search(r"Of \d{3,} more cohorts, with fewer calls, see the table", text)
    assert "v1, 21+:" in text
    assert len(text.encode()) < LIMIT_BYTES


def test_traces_that_say_too_much_keep_the_page_small(tmp_path):
    with store_of(made()) as store:
        content = gather(store)
    loud = Score('"' * 5000, 0.0, '"' * 5000, True, "ok", '"' * 5000, None)
    span = content.worst[0].spans[0]
    loudest = replace(span, scores=(loud,) * 200, facts={**span.facts, "name": '"' * 5000, "model": '"' * 5000})
    page = render(replace(content, worst=(replace(content.worst[0], spans=(loudest,) * 60, scores=(loud,) * 200),) * 3))
    assert "and 188 more scores" in page
    assert len(page.encode()) < LIMIT_BYTES


def test_of_many_releases_the_table_shows_the_compared_ones():
    with store_of(made()) as store:
        content = gather(store)
    table = content.table
    older = tuple(replace(row, group=row.group | {"release": f"v0.{place}"}) for place in range(30) for row in table.rows)
    page = render(replace(content, table=replace(table, rows=(*older, *table.rows)))).split('id="table"')[1]
    assert "more rows" in page
    assert [len(re.findall(rf'<td title="{name}">', page)) for name in ("v1", "v2")] == [5, 5]
