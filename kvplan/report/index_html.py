"""A page about plans as one HTML file: its pictures are in it, and nothing is loaded from elsewhere."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from html import escape

from kvplan.report.grid import Grid, grid
from kvplan.report.index import Drawn, Picture, PlanPage, themes_of
from kvplan.report.plots.theme import LIGHT, Theme
from kvplan.results import Facts, Report, Shown, Table

# A browser is told, too, that nothing is to be loaded or run.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """\
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  margin: 0 auto; max-width: 1680px; padding: 1rem 1.5rem 3rem; }
h1, h2 { line-height: 1.2; }
h2 { border-top: 1px solid var(--grid); margin-top: 3rem; padding-top: 1.5rem; }
a { color: inherit; }
.scrolls { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { font-weight: 600; text-align: left; }
th, td { border-bottom: 1px solid var(--grid); padding: .3rem .9rem .3rem 0; text-align: left; }
th { color: var(--quiet); font-weight: 600; vertical-align: bottom; white-space: pre-line; }
.figures { text-align: right; white-space: nowrap; }
.no { color: var(--limit); }
.notes { color: var(--quiet); font-size: .875rem; padding-left: 1.2rem; }
.pictures { display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 36rem), 1fr)); }
figure { margin: 0; }
figcaption { color: var(--quiet); font-size: .875rem; }
img { display: block; height: auto; width: 100%; max-width: 800px; }"""


def render_index_html(pages: Sequence[PlanPage]) -> str:
    """Return the page, in the colours of its pictures: those a reader prefers, where it has several."""
    themes = themes_of(pages) or (LIGHT,)
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta name="color-scheme" content="{" ".join(theme.name for theme in themes)}">',
        "<title>Plans</title>",
        "<style>",
        *_colors(themes),
        _STYLE,
        "</style>",
        "</head>",
        "<body>",
        "<h1>Plans</h1>",
        *_contents(pages),
        *(line for page in pages for line in _plan(page)),
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def _colors(themes: Sequence[Theme]) -> Iterator[str]:
    first, *others = themes
    yield f":root {{ {_variables(first)} }}"
    for theme in others:
        yield f"@media (prefers-color-scheme: {theme.name}) {{ :root {{ {_variables(theme)} }} }}"


def _variables(theme: Theme) -> str:
    names = ("paper", "ink", "quiet", "grid", "limit")
    return " ".join([f"color-scheme: {theme.name};", *(f"--{n}: {getattr(theme, n)};" for n in names)])


def _contents(pages: Sequence[PlanPage]) -> Iterator[str]:
    """Iterate over the lines of a table of all plans with their answers."""
    yield '<div class="scrolls"><table>'
    yield "<thead><tr><th>plan</th><th>answer</th></tr></thead>"
    yield "<tbody>"
    for page in pages:
        link = f'<a href="#{escape(page.name)}">{escape(page.name)}</a>'
        yield f"<tr><td>{link}</td><td{_no(page.checked)}>{escape(page.answer)}</td></tr>"
    yield "</tbody></table></div>"


def _no(report: Report | None) -> str:
    """Return the class of an answer that is no; its words say so, too."""
    no = report is not None and report.verdict is not None and not report.verdict.yes
    return ' class="no"' if no else ""


def _plan(page: PlanPage) -> Iterator[str]:
    yield f'<section id="{escape(page.name)}">'
    yield f"<h2>{escape(page.name)}</h2>"
    if page.checked is not None:
        yield f"<p>{escape(page.checked.heading)}</p>"
        for section in page.checked.sections:
            yield from _section(section)
    yield f"<p><strong{_no(page.checked)}>{escape(page.answer)}</strong></p>"
    if page.pictures:
        yield '<div class="pictures">'
        yield from (_figure(picture) for picture in page.pictures)
        yield "</div>"
    notes = [*(page.checked.notes if page.checked is not None else ())]
    notes += [f"Not drawn: {reason}" for reason in page.left_out]
    if notes:
        yield '<ul class="notes">'
        yield from (f"<li>{escape(note)}</li>" for note in notes)
        yield "</ul>"
    yield "</section>"


def _section(section: Facts | Table) -> Iterator[str]:
    if section.shown is Shown.NOT:
        return
    found = grid(section)
    if isinstance(found, str):
        yield f"<p>{escape(section.title)}: {escape(found)}</p>"
    else:
        yield from _rows(section.title, found)


def _rows(title: str, found: Grid) -> Iterator[str]:
    kinds = ["" if words else ' class="figures"' for words in found.words]
    heads = "".join(f"<th{k}>{escape(text)}</th>" for k, text in zip(kinds, found.heads, strict=True))
    yield f'<div class="scrolls"><table><caption>{escape(title)}</caption>'
    yield f"<thead><tr>{heads}</tr></thead>"
    yield "<tbody>"
    for row in found.rows:
        yield f"<tr>{''.join(f'<td{k}>{escape(text)}</td>' for k, text in zip(kinds, row, strict=True))}</tr>"
    yield "</tbody></table></div>"


def _figure(picture: Picture) -> str:
    """Return a picture as an image: drawn in the page itself, pictures would share the names in them."""
    first, *others = picture.drawn
    sources = "".join(
        f'<source media="(prefers-color-scheme: {one.theme.name})" srcset="{_address(one)}">'
        for one in others
    )
    shown = f'<img src="{_address(first)}" alt="{escape(picture.words)}">'
    caption = f"<figcaption>{escape(picture.name)}</figcaption>"
    return f"<figure><picture>{sources}{shown}</picture>{caption}</figure>"


def _address(drawn: Drawn) -> str:
    return f"data:{drawn.media_type};base64,{b64encode(drawn.data).decode('ascii')}"
