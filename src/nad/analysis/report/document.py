"""`nad report`: one HTML file with summary, tables, figures and explorer that needs no network when opened."""

import base64
import hashlib
import html
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.resources import files
from string import Template

import numpy as np

from nad.analysis.figures import all_figures
from nad.analysis.figures.canvas import Drawn, png
from nad.analysis.report import explorer_data as explorer
from nad.analysis.requirements import lacks
from nad.analysis.statistics import Estimate
from nad.analysis.summary import RunDigest, digest, tallies_of
from nad.analysis.tables.accuracy import Table, all_tables
from nad.analysis.tables.formats import cells, tokens_text
from nad.drawing import asset
from nad.runs.records import Run
from nad.stopping import CHUNK

BYTES = 20_000_000
"""Bytes of the largest report. Long texts give way first, from their middle, where the text says what is left out."""
_BROAD = 6
"""Inches of width from which on a figure has a row of its own."""
_CHARACTERS = 60_000_000
"""Characters of text kept in memory while a report is made, over all samples."""


def report(runs: Sequence[Run], command: str, status: Callable[[str], None] = lambda text: None) -> str:
    """The report on these runs as one HTML document; `command` is what made it, as its reader could run it again."""
    samples = sum(len(run) * run.manifest.n for run in runs)
    digests = [digest(run, max(200, _CHARACTERS // max(1, samples)), status) for run in runs]
    status("drawing")
    tables, missing = all_tables(digests)
    drawn, lacking = all_figures(digests)
    status("packing")
    parts = {
        "summary": _summary(digests),
        "tables": "".join(map(_table, tables)),
        "figures": f'<div class="figures">{"".join(map(_figure, drawn))}</div>',
        "missing": _missing([*missing, *lacking]),
        "command": html.escape(command),
        "manifests": "".join(_manifest(run) for run in digests),
        "planted": _PLANTED if any(run.manifest.model == "planted" for run in digests) else "",
    }
    return _fitting(parts, digests)


_PLANTED = '<p class="warning">This report shows planted data, made up for a test. Nothing in it is a result.</p>'


def _fitting(parts: dict[str, str], runs: Sequence[RunDigest]) -> str:
    """The document with texts as long as the size allows."""
    script = asset("draw.js") + _asset("explorer.js")
    style = asset("theme.css") + _asset("report.css")
    sha256 = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    problems = [p for run in runs for p in run.problems]
    pictures = [_data(f"picture-{i}", explorer.picture(p)) for i, p in enumerate(problems)]
    parts |= {"script": script, "style": style, "script_sha256": sha256}
    fixed = [_data("index", explorer.index(runs)), *pictures]
    characters = max(len(text) for p in problems for text in p.texts)
    while True:
        texts = [_data(f"texts-{i}", explorer.texts(p, characters)) for i, p in enumerate(problems)]
        document = Template(_asset("report.html")).substitute(parts, data="".join([*fixed, *texts]))
        if len(document.encode("utf-8", "replace")) <= BYTES or not characters:
            return document
        characters = 3 * characters // 4 if characters > 100 else 0


def _asset(name: str) -> str:
    return (files("nad.analysis.report") / "assets" / name).read_text(encoding="utf-8")


def _data(name: str, value: object) -> str:
    return f'<script type="text/plain" id="{name}">{explorer.packed(value)}</script>\n'


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    body = "".join(f"<tr>{_cells('th', row[:1])}{_cells('td', row[1:])}</tr>" for row in rows)
    return f'<div class="wide" tabindex="0"><table><tr>{_cells("th", header)}</tr>{body}</table></div>'


def _summary(runs: Sequence[RunDigest]) -> str:
    header = ("Task", "Model", "Problems", "n", "Tokens", "Distinct at 32", "Avg@n", "kNN, full", "kNN at 32", "Saved")
    return _grid(header, [_summary_row(run) for run in runs])


def _summary_row(run: RunDigest) -> list[str]:
    problems = run.problems
    found = tallies_of(problems, [("avg", None), ("knn", None), ("knn", CHUNK)])
    distinct = np.mean([p.distinct[0] for p in problems])
    row = [
        run.manifest.task,
        run.manifest.model,
        str(len(problems)),
        str(run.manifest.n),
        tokens_text(found[0].sampled),
    ]
    row.append(f"{distinct:.1f} of {run.manifest.n}")
    if lacks(run, "full", "grades"):
        return [*row, "not graded", "–", "–", "–"]  # noqa: RUF001
    return [*row, *(_accuracy(tally.accuracy) for tally in found), f"{found[-1].saved or 0:.1%}"]


def _accuracy(estimate: Estimate) -> str:
    value = f"{100 * estimate.value:.1f} %"
    return value if np.isnan(estimate.low) else f"{value} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _table(table: Table) -> str:
    rows = [[row.method, row.model, *cells(table, row)] for row in table.rows]
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    title = f"<h3>Table {table.number}. {html.escape(table.title)}</h3>"
    return f"{title}{_grid(['Method', 'Model', *table.columns], rows)}<ul class='notes'>{notes}</ul>"


def _figure(drawn: Drawn) -> str:
    picture = base64.b64encode(png(drawn)).decode()
    title, caption = html.escape(drawn.title), html.escape(drawn.caption)
    image = f'<img src="data:image/png;base64,{picture}" alt="{title}">'
    shape = ' class="broad"' if drawn.figure.get_figwidth() > _BROAD else ""
    return f"<figure{shape}>{image}<figcaption><strong>{title}.</strong> {caption}</figcaption></figure>"


def _missing(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    return f"<h3>Not shown</h3><ul class='notes'>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>"


def _manifest(run: RunDigest) -> str:
    text = json.dumps(asdict(run.manifest), indent=1, ensure_ascii=False, default=str)
    return f"<h3>{html.escape(run.label)}</h3><pre>{html.escape(text)}</pre>"
