"""A run or an evaluation as one page that needs nothing else: numbers, curves, labels, images and settings."""

from __future__ import annotations

import base64
import html
import io
from datetime import datetime
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from maskformer.data.example import Source
from maskformer.data.files import replace_file
from maskformer.data.label_set import LabelSet
from maskformer.evaluation.answers import answers, kinds_of_answers, readable_examples
from maskformer.evaluation.report import COLUMNS, TITLES, label_rows, percent, versions
from maskformer.recipes.arguments import EvaluationArguments
from maskformer.training.curves import history_panels
from maskformer.training.pictures import drawn

# The page may show what it holds, and can load nothing: it is mailed, and opened anywhere.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --faint: #616a76; --line: #d8dde3; --page: #fff; --box: #f4f6f8;
  --bar: #8db4de; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e7ec; --faint: #98a2ae; --line: #343b44; --page: #14181d; --box: #1e242b; --bar: #3b6ea8; }
  .curves img { filter: invert(1) hue-rotate(180deg); }  /* black on nothing becomes white, and red stays red */
}
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 72rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 1.75rem; line-height: 1.25; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.25rem; }
p, figcaption, footer { color: var(--faint); }
footer { margin-top: 2.5rem; font-size: .875rem; }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); gap: .75rem; margin: 0; }
.numbers div { padding: .6rem .8rem; border-radius: .5rem; background: var(--box); }
.numbers dt { color: var(--faint); font-size: .875rem; }
.numbers dd { margin: 0; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem; }
.curves img { width: 100%; }
.box { overflow: auto; max-height: 40rem; border: 1px solid var(--line); border-radius: .5rem; }
table { width: 100%; border-collapse: collapse; font-size: .9375rem; }
th, td { padding: .3rem .75rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
th { position: sticky; top: 0; background: var(--box); font-weight: 600; }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid; }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { background: linear-gradient(var(--bar) 0 0) 0 100% / var(--part, 0%) 3px no-repeat content-box; }
td.color { position: sticky; left: 0; background: var(--page); }
td.color::before { content: ""; display: inline-block; width: .75em; height: .75em; margin-right: .6em;
  border-radius: .15em; background: var(--color); }
figure { margin: 0 0 1.25rem; }
figcaption { margin-bottom: .25rem; }
figure div { display: grid; grid-template-columns: repeat(3, minmax(10rem, 1fr)); gap: .5rem; overflow-x: auto; }
figure img { width: 100%; max-height: 30rem; object-fit: contain; }
summary { cursor: pointer; padding: .3rem 0; font-weight: 600; }
.settings td { white-space: normal; vertical-align: top; }
"""
# A click on a head sorts: words from A, numbers from the largest, the other way at the next click; dashes stay last.
SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.parentElement, number = head.className === "number", body = head.closest("table").tBodies[0];
  const [first, second] = number ? ["descending", "ascending"] : ["ascending", "descending"];
  const order = head.getAttribute("aria-sort") === first ? second : first, sign = order === "ascending" ? 1 : -1;
  const text = (row) => row.cells[head.cellIndex].textContent;
  const value = (row) => parseFloat(text(row).replaceAll(",", ""));
  const by_word = (a, b) => sign * text(a).localeCompare(text(b));
  const by_number = (a, b) => isNaN(value(a)) - isNaN(value(b)) || sign * (value(a) - value(b));
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  body.append(...[...body.rows].sort(number ? by_number : by_word));
};
"""


def write_html(
    path: Path,
    title: str,
    facts: list[str],
    results: dict,
    labels: LabelSet,
    settings: dict,
    curves: list[str],
    pictures: dict[int, list[str]],
) -> None:
    """Writes the page, all or nothing.

    `results` are those of `results_of`, `settings` values by section and name, `curves` those of `curve_urls` and
    `pictures` those of `example_urls`.
    """
    date = f"{datetime.now():%Y-%m-%d %H:%M}"
    body = [
        f"<h1>{safe(title)}</h1>",
        f"<p>{safe(' · '.join([date, *facts]))}</p>",
        headline(results),
        section("Training", panels(curves)),
        section("Labels", table_of_labels(results["per_label"], labels)),
        section("The worst images", gallery(results["worst"], pictures)),
        section("The best images", gallery(results["best"], pictures)),
        section("Settings", "".join(table_of_settings(name, values) for name, values in settings.items() if values)),
        f"<footer>{safe(versions())}</footer>",
    ]
    with replace_file(path) as temporary:
        # Names of files may hold bytes that are no text.
        temporary.write_text(page(title, "\n".join(body)), encoding="utf-8", errors="backslashreplace")


def safe(value: object) -> str:
    """A value as text of a page, whatever it holds: all that comes from data goes through here."""
    return html.escape(str(value))


def page(title: str, body: str) -> str:
    """The whole document."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{safe(title)}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
<script>{SCRIPT}</script>
</body>
</html>
"""


def section(title: str, content: str) -> str:
    """A part of the page under its title, or nothing where there is no content."""
    return f"<section>\n<h2>{safe(title)}</h2>\n{content}\n</section>" if content else ""


def image(url: str, about: str) -> str:
    """A picture, given as a data URL."""
    return f'<img src="{url}" alt="{safe(about)}">'


def panels(curves: list[str]) -> str:
    """The curves beside one another, where there is room."""
    images = "".join(image(url, "curves of the training") for url in curves)
    return f'<div class="curves">{images}</div>' if images else ""


def headline(results: dict) -> str:
    """The metrics of the whole dataset."""
    numbers = [(title, percent(results[key])) for key, title in TITLES.items() if key in results]
    tiles = "".join(f"<div><dt>{safe(title)}</dt><dd>{safe(number)}</dd></div>" for title, number in numbers)
    return section(f"{results['images']} validation images, in %", f'<dl class="numbers">{tiles}</dl>')


def table_of_labels(per_label: dict[str, dict], labels: LabelSet) -> str:
    """A row for each label with its colour; shares have a bar below them."""
    heads, rows = label_rows(per_label, labels)
    shares = [head in COLUMNS.values() for head in heads]
    kinds = ["", ""] + [' class="number"'] * (len(heads) - 2)
    top = "".join(f"<th{kind}><button>{safe(head)}</button></th>" for head, kind in zip(heads, kinds, strict=True))
    lines = []
    for (name, *cells), color in zip(rows, labels.colors, strict=True):
        line = f'<td class="color" style="--color: rgb{tuple(map(int, color))}">{safe(name)}</td>'
        for cell, kind, share in zip(cells, kinds[1:], shares[1:], strict=True):
            bar = f' style="--part: {safe(cell)}%"' if share and cell != "–" else ""
            line += f"<td{kind}{bar}>{safe(cell)}</td>"
        lines.append(f"<tr>{line}</tr>")
    return "<p>Shares in %; a click on a column's head sorts.</p>" + table(top, lines)


def table_of_settings(name: str, values: object) -> str:
    """One section of the settings, folded up."""
    named = values if isinstance(values, dict) else {name: values}
    lines = [f"<tr><td>{safe(key)}</td><td>{safe(value)}</td></tr>" for key, value in named.items()]
    head = "<th>setting</th><th>value</th>"
    return f'<details class="settings"><summary>{safe(name)}</summary>{table(head, lines)}</details>\n'


def table(head: str, lines: list[str]) -> str:
    """A table that scrolls in its own box, so that the page never does sideways."""
    body = "\n".join(lines)
    return f'<div class="box" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def gallery(rows: list[dict], pictures: dict[int, list[str]]) -> str:
    """Image, truth and prediction of each of `rows` that has pictures, under its id and score."""
    figures = []
    for row in rows:
        urls = zip(pictures.get(row["index"], []), ("image", "truth", "prediction"), strict=False)
        tiles = "".join(image(url, about) for url, about in urls)
        caption = f"{row['image_id']} · {row['metric']} {percent(row['score'])}"
        if tiles:
            figures.append(f"<figure><figcaption>{safe(caption)}</figcaption><div>{tiles}</div></figure>")
    return "<p>Image, truth and prediction.</p>" + "\n".join(figures) if figures else ""


def example_urls(
    model, image_processor, source: Source, arguments: EvaluationArguments, results: dict
) -> dict[int, list[str]]:
    """Image, truth and prediction of the worst and best images of `results`, as data URLs, by index.

    These few are answered once more: keeping the answers of a whole dataset would take its memory.
    """
    kinds = kinds_of_answers(arguments, image_processor, source.labels) - {"instance"}
    indices = [row["index"] for row in results["worst"] + results["best"]]
    examples = readable_examples(source, indices, skip_bad=True)
    return {
        example["index"]: [picture_url(picture) for picture in drawn(example, answer, source.labels)]
        for example, answer in answers(model, image_processor, examples, arguments, kinds)
    }


def picture_url(picture: np.ndarray | Image.Image) -> str:
    """A picture as a JPEG, which is small enough to be mailed by the dozen; coloured outlines stay sharp."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(picture)).save(file, format="JPEG", quality=88, subsampling=0)
    return data_url("image/jpeg", file)


def curve_urls(history: Path) -> list[str]:
    """The panels of `draw_curves`, drawn as vectors on nothing, so that a page can lay them out and colour them.

    None where there is no history.
    """
    if not history.is_file():
        return []
    urls = []
    for draw in history_panels(history):
        figure, file = Figure(figsize=(5.2, 4), layout="constrained"), io.BytesIO()
        draw(figure.subplots())
        figure.savefig(file, format="svg", transparent=True)
        urls.append(data_url("image/svg+xml", file))
    return urls


def data_url(kind: str, file: io.BytesIO) -> str:
    """What `file` holds, as part of a page."""
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
