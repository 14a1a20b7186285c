"""All results as one self-contained HTML page: no network, no script, for a screen, a telephone and paper."""

from __future__ import annotations

import base64
import json
from html import escape
from pathlib import Path

from ..data.source import shown
from .forest import forest
from .markdown import gold, measured
from .result import Result
from .style import STYLE

ABOUT = ("Krizhevsky, Sutskever and Hinton, “ImageNet Classification with Deep Convolutional Neural Networks”, NIPS 2012: "
         "each experiment of the paper, the number it prints, and what was measured here. An interval is that of 95 % over seeds "
         "(Student’s t); arms of an experiment share their seeds, and differences are taken seed by seed.")
WORDS = {"supported": "the interval lies on the side the paper claims", "inconclusive": "the interval holds 0, or there is one seed only",
         "contradicted": "the interval lies on the other side", "not run": "nothing was measured"}


def page(results: list[Result], folder: Path, *, publish: bool = False) -> str:
    """The page as text.  Pictures are read from `folder`; with `publish` those that may not be passed on are left out, and it says so."""
    seen = [one for one in results if one.status != "not run"]
    stamps = [("run", sorted({one.date for one in seen})), ("commit", sorted({short(one.commit) for one in seen})),
              ("on", sorted({one.machine for one in seen}))]
    stamp = "; ".join(f"{word} {', '.join(values)}" for word, values in stamps if any(values))
    body = [f"<header><h1>The paper’s experiments, and what came out here</h1><p>{ABOUT}</p>",
            f'<p class="soft small">{_text(stamp or "nothing has been run yet")}</p></header>', _counts(results), _overview(results)]
    body += [_section(one, folder, publish) for one in results]
    return ('<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>The paper’s experiments</title><style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n")


def short(commit: str) -> str:
    """Twelve of its digits, and whether files differed from it."""
    name, dirty, _ = commit.partition("-dirty")
    return (name[:12] if name.isalnum() else name) + dirty


def _text(text: str) -> str:
    return escape(shown(text))


def _standing(result: Result) -> str:
    """What a reader looks for first: the verdict, or that there is none to give."""
    return result.verdict or ("not run" if result.status == "not run" else "measured")


def _counts(results: list[Result]) -> str:
    told = [_standing(one) for one in results]
    items = [f"<li><b>{told.count(word)}</b>{word}: {why}</li>" for word, why in WORDS.items()]
    return f'<ul class="counts">{"".join(items)}</ul>'


def _overview(results: list[Result]) -> str:
    lines = []
    for one in results:
        row = next((r for r in one.rows if r.verdict), next((r for r in one.rows if r.measured), one.rows[0] if one.rows else None))
        told, name = _standing(one), _text(one.name)
        cells = [_text(gold(row)) or "–", _text(measured(row.measured, row.unit)) if row.measured else "–"] if row else ["–", "–"]
        what = f'<br><span class="soft small">{_text(row.what)}</span>' if row else ""
        lines.append(f'<tr><th scope="row"><a href="#{name}">{_text(one.title)}</a>{what}</th><td>{_text(one.section)}</td>'
                     f'<td class="n">{cells[0]}</td><td class="n">{cells[1]}</td><td>{one.status}</td>'
                     f'<td class="{told.replace(" ", "-")}">{told}</td></tr>')
    return ('<div class="scroll"><table><caption>One row of each experiment; all rows stand below.</caption>'
            '<thead><tr><th scope="col">experiment</th><th scope="col">section</th><th scope="col" class="n">paper</th>'
            '<th scope="col" class="n">measured (95 %; seeds)</th><th scope="col">status</th>'
            f'<th scope="col">verdict</th></tr></thead><tbody>{"".join(lines)}</tbody></table></div>')


def _section(one: Result, folder: Path, publish: bool) -> str:
    told = _standing(one)
    parts = [f'<section id="{_text(one.name)}"><h2>{_text(one.title)} <span class="soft small">section {_text(one.section)}</span></h2>',
             f"<p>{_text(one.claim)}</p>",
             f'<p class="small"><b class="{told.replace(" ", "-")}">{told}</b> · {one.status}, scale {one.scale}'
             + (f" · {_text(one.data)}" if one.data else "") + "</p>"]
    if one.why:
        parts.append(f'<p class="soft">Not run: {_text(one.why)}.</p>')
    if one.rows:
        lines = "".join(
            f'<tr><th scope="row">{_text(row.what)}</th><td class="n">{_text(gold(row)) or "–"}</td><td class="n">'
            f'{_text(measured(row.measured, row.unit)) if row.measured else "–"}</td>'
            f'<td class="{row.verdict or ""}">{row.verdict or ""}</td></tr>' for row in one.rows)
        parts.append('<div class="scroll"><table><thead><tr><th scope="col">what</th><th scope="col" class="n">paper</th>'
                     '<th scope="col" class="n">measured (95 %; seeds)</th><th scope="col">verdict</th></tr></thead>'
                     f"<tbody>{lines}</tbody></table></div>")
    parts.append(forest(one.rows))
    parts.append(_picture(one, folder, publish))
    if one.note:
        parts.append(f"<p>{_text(one.note)}</p>")
    arms = json.dumps(one.configuration, indent=1, ensure_ascii=False)
    seeds = f"Seeds {', '.join(map(str, one.seeds))}. " if one.seeds else ""
    again = f"<pre>minialex reproduce {_text(one.name)} --scale {one.scale}</pre><pre>{_text_lines(arms)}</pre>"
    parts.append(f"<details><summary>How to run it again</summary><p>{seeds}{_text(short(one.commit))}, {_text(one.date)}, "
                 f"{one.seconds:.0f} s of computing.</p>{again}</details>")
    return "\n".join(part for part in parts if part) + "\n</section>"


def _text_lines(text: str) -> str:
    return "\n".join(_text(line) for line in text.splitlines())


def _picture(one: Result, folder: Path, publish: bool) -> str:
    if not one.picture:
        return ""
    if publish and not one.publishable:
        return '<p class="soft small">Its picture shows photographs that may be looked at but not passed on, and is left out here.</p>'
    try:
        content = (folder / one.picture).read_bytes()
    except OSError as error:
        return f'<p class="soft small">Its picture, {_text(one.picture)}, cannot be read ({_text(error.strerror or "")}).</p>'
    data = base64.b64encode(content).decode()
    return (f'<figure><img alt="{_text(one.title)}: {_text(one.claim)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{_text(one.title)}. {_text(one.data)}.</figcaption></figure>")
