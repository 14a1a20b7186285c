"""The page of all results: complete, self-contained, well-formed, honest about what was not run."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from commands import finished, refused

from minialex.reproduce import markdown
from minialex.reproduce.catalogue import CATALOGUE
from minialex.reproduce.forest import forest
from minialex.reproduce.page import page
from minialex.reproduce.report import gather
from minialex.reproduce.result import Interval, Result, Row
from minialex.spec import MiniAlexError

PIXEL = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415478da63f8ffff3f0005fe02fe"
                      "a75cd1b50000000049454e44ae426082")
VOID = {"meta", "img", "br", "line", "circle", "path"}


def result(name: str = "lrn", **changes) -> Result:
    rows = [Row("top-1 error", "%", 40.664, Interval.of([50.0, 52.0])),
            Row("difference", "points", 1.37, Interval.of([1.0, 2.0, 3.0]), "supported"), Row("as printed", "%", "47.1 / 28.2")]
    words = dict(name=name, title="Norms", section="3.3", claim="They help.", scale="quick", status="subset", rows=rows, note="Seen.",
                 data="some pictures", seeds=[0, 1, 2], configuration={"base": {"recipe": "small"}}, picture=f"{name}-quick.png",
                 seconds=12.0, commit="0123456789abcdef0123-dirty", date="2026-11-24", machine="2 cores")
    return Result(**words | changes)


class Checked(HTMLParser):
    """Collects ids, links and sources, and fails on a tag that is closed out of turn."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if "href" in attrs else []
        self.sources += [attrs["src"]] if "src" in attrs else []
        if tag == "img":
            assert attrs["alt"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID, tag

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def folder_of(tmp_path: Path, *results: Result) -> Path:
    for one in results:
        one.save(tmp_path)
        if one.picture:
            (tmp_path / one.picture).write_bytes(PIXEL)
    return tmp_path


HOSTILE = "<script>alert('$x$ & \"y\"')</script> | \u2603 \U0001f600 \x07"


def test_a_page_of_every_kind_of_result_is_well_formed_and_self_contained(tmp_path):
    results = [result(), result("fig1", status="full", rows=[Row("epochs", "epochs", "six", Interval.of([3.0]))], picture=None),
               result("depth", status="not run", rows=[Row("worse", "points", 2.0)], why="needs ImageNet", picture=None),
               result("pooling", rows=[Row("d", "points", 0.4, Interval.of([-3.0, -2.9, -3.1]), "contradicted")]),
               result("codes", title=HOSTILE, note=HOSTILE, data=HOSTILE, rows=[Row(HOSTILE, "points", HOSTILE, Interval.of([1.0, 9.0]))])]
    text = page(results, folder_of(tmp_path, *results))
    found = Checked(text)
    assert len(set(found.ids)) == len(found.ids) == 5 and {link[1:] for link in found.links} == set(found.ids)
    assert all(source.startswith("data:image/png;base64,") for source in found.sources) and len(found.sources) == 3
    assert "<script" not in text and "alert" in "".join(found.words) and not re.search(r"https?://|@import|url\(", text)
    told = re.findall(r"<li><b>(\d)</b>(\w+(?: \w+)?):", text)
    assert told == [("1", "supported"), ("0", "inconclusive"), ("1", "contradicted"), ("1", "not run")]
    assert page(results, tmp_path) == text


def test_what_was_not_measured_is_never_implied(tmp_path):
    text = page([result("depth", status="not run", rows=[Row("worse", "points", 2.0)], why="needs ImageNet", picture=None)], tmp_path)
    section = text[text.index('<section id="depth"'):]
    assert "Not run: needs ImageNet." in section and "<svg" not in section
    assert re.findall(r'<td class="n">([^<]*)</td>', section) == ["2 points", "–"]


def test_the_drawing_shows_zero_the_interval_and_the_gold_number():
    drawn = forest([Row("difference", "points", 2.0, Interval(values=[0, 4], mean=2.0, low=-2.0, high=6.0))])
    x = {name: [float(v) for v in re.findall(pattern, drawn)] for name, pattern in
         (("bar", r'class="bar" x1="([\d.]+)"'), ("end", r'class="bar" x1="[\d.]+" x2="([\d.]+)"'), ("dot", r'cx="([\d.]+)"'),
          ("zero", r'class="zero" x1="([\d.]+)"'), ("gold", r'class="gold" d="M([\d.]+)'))}
    assert x["bar"][0] < x["zero"][0] < x["dot"][0] < x["end"][0] and x["gold"][0] + 6 == pytest.approx(x["dot"][0])
    assert x["zero"][0] - x["bar"][0] == pytest.approx((x["end"][0] - x["bar"][0]) / 4, abs=0.11)
    assert forest([Row("size", "%", 3.0, Interval.of([1.0, 2.0])), Row("one seed", "points", 1.0, Interval.of([1.0]))]) == ""
    assert forest([Row("equal", "points", None, Interval.of([0.0, 0.0]))])


def test_pictures_that_may_not_be_passed_on_are_left_out_when_published(tmp_path):
    results = [result(publishable=False), result("fig1")]
    folder = folder_of(tmp_path, *results)
    assert len(Checked(page(results, folder)).sources) == 2
    published = page(results, folder, publish=True)
    assert len(Checked(published).sources) == 1 and "not passed on" in published
    (folder / "lrn-quick.png").unlink()
    assert "lrn-quick.png, cannot be read (No such file or directory)" in page(results, folder)


def test_the_greatest_scale_with_figures_stands_for_an_experiment(tmp_path):
    folder_of(tmp_path, result("fig1", status="full", scale="cifar"), result("fig1"), result(),
              result(scale="full", status="not run", rows=[]))
    found = {one.name: one for one in gather(tmp_path)}
    assert list(found) == list(CATALOGUE) and found["fig1"].scale == "cifar" and found["lrn"].scale == "quick"
    assert found["depth"].status == "not run" and [row.gold for row in found["depth"].rows] == ["worse", 2.0, 2.0, 2.0, "worse"]


def test_the_table_stands_between_the_markers(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(f"before\n{markdown.BEGIN}\nold\n{markdown.END}\nafter\n")
    markdown.write([result(rows=[*result().rows, Row("a | b", "%")])], path)
    text = path.read_text()
    assert text.startswith(f"before\n{markdown.BEGIN}\n|") and text.endswith(f"{markdown.END}\nafter\n") and "old" not in text
    assert "| `lrn` | 3.3 | top-1 error | 40.664 % | 51 % (38.3 to 63.7; 2) | some pictures | subset |  |" in text
    assert "|  |  | difference | 1.37 points | 2 points (-0.484 to 4.48; 3) |  |  | supported |" in text and "a \\| b" in text
    again = text
    markdown.write([result(rows=[*result().rows, Row("a | b", "%")])], path)
    assert path.read_text() == again
    path.write_text("no markers")
    with pytest.raises(MiniAlexError, match=r"it has no lines .*begin"):
        markdown.write([result()], path)
    assert path.read_text() == "no markers"


@pytest.mark.parametrize("value, text", [(0, "0"), (1234.6, "1235"), (37.4727, "37.5"), (1.3701, "1.37"), (-0.3941, "-0.394")])
def test_numbers_have_three_figures(value, text):
    assert markdown.number(value) == text


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(capsys, tmp_path, ["report"], "there is no such folder", "minialex reproduce all")
    (tmp_path / "reproduction").mkdir()
    folder_of(tmp_path / "reproduction", result())
    refused(capsys, tmp_path, ["report", "--out", "none/report.html"], "there is no folder")
    out = finished(capsys, "report", "--markdown", "table.md")
    assert "1 of 25 experiments have been run" in out and (tmp_path / "table.md").read_text().count("| `") == 25
    assert len(Checked((tmp_path / "reproduction" / "report.html").read_text()).sources) == 1
    (tmp_path / "reproduction" / "fig1-quick.json").write_text("{")
    refused(capsys, tmp_path, ["report"], "fig1-quick.json is no result of an experiment")


def test_a_browser_shows_it_on_a_telephone_without_sideways_scrolling(tmp_path):
    if not (browser := shutil.which("chromium")):
        pytest.skip("no chromium on the PATH to show the page with")
    text = page([result(), result("fig1", note="a" * 500, title="b" * 200)], folder_of(tmp_path, result(), result("fig1")))
    measure = '<script>document.title = document.documentElement.scrollWidth + " of " + innerWidth</script></body>'
    frame = tmp_path / "frame.html"
    (tmp_path / "page.html").write_text(text.replace("</body>", measure))
    frame.write_text('<iframe id="f" src="page.html" width="375" height="800" style="border:0"></iframe><script>onload = () => '
                     '{ document.title = document.getElementById("f").contentDocument.title }</script>')
    done = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom",
                           f"--user-data-dir={tmp_path / 'profile'}", frame.as_uri()], capture_output=True, text=True, timeout=60)
    found = re.search(r"<title>(\d+) of 375</title>", done.stdout)
    assert found and 300 < int(found[1]) <= 375, done.stdout[:300]
