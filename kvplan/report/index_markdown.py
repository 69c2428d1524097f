"""A page about plans as GitHub Markdown, beside the files of its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from kvplan.report.export import escaped_markdown, render_markdown
from kvplan.report.index import Picture, PlanPage


def render_index_markdown(pages: Sequence[PlanPage]) -> str:
    """Return the page: what holds, then every plan with its table and its pictures."""
    rows = [f"| {escaped_markdown(page.name)} | {escaped_markdown(page.answer)} |" for page in pages]
    blocks = ["# Plans", "\n".join(["| plan | answer |", "| --- | --- |", *rows])]
    for page in pages:
        blocks.append(f"## {escaped_markdown(page.name)}")
        if page.checked is not None:
            blocks.append(render_markdown(page.checked).rstrip("\n"))
        blocks += [_picture(picture) for picture in page.pictures]
        blocks += [f"_Not drawn: {escaped_markdown(reason)}_" for reason in page.left_out]
    return "\n\n".join(blocks) + "\n"


def _picture(picture: Picture) -> str:
    """Return a picture as HTML, which Markdown may hold and which alone knows of themes."""
    first, *others = picture.drawn
    sources = "".join(
        f'<source media="(prefers-color-scheme: {one.theme.name})" srcset="{escape(one.file)}">'
        for one in others
    )
    shown = f'<img src="{escape(first.file)}" alt="{escape(_one_line(picture.words))}">'
    return f"<picture>{sources}{shown}</picture>"


def _one_line(text: str) -> str:
    """Return a text without line breaks: an empty line would end the HTML."""
    return " ".join(text.split())
