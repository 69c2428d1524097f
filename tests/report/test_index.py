"""The page about plans: nothing in a text can become markup, and nothing is loaded from elsewhere."""

import base64
import re
from html.parser import HTMLParser

import pytest

from kvplan.charts import Axis, Chart, Curves
from kvplan.report.export import escaped_markdown, render_markdown
from kvplan.report.index import Drawn, Picture, PlanPage
from kvplan.report.index_html import render_index_html
from kvplan.report.index_markdown import render_index_markdown
from kvplan.report.plots.theme import DARK, LIGHT
from kvplan.results import Column, Facts, Report, Shown, Table, Verdict, fact
from kvplan.units import Unit

HOSTILE = '<script>alert("x")</script>\n\n[a](http://b) | `c` **d** _e_ &amp; </style> \' "'
SVG, DARK_SVG = b"<svg>light</svg>", b"<svg>dark</svg>"
VOID = {"meta", "img", "source"}


class Page(HTMLParser):
    """A page as a browser reads it: its elements, whether they are nested as they should be, and its text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return "".join(self.words)


def report(text="plain", yes=True):
    columns = (
        Column("requirement", "requirement", (fact("requirement", text, "here"),)),
        Column("note", f"{text} head", (fact("note", text, "here"),)),
        Column("got", "got", (fact("got", 7, "here", Unit.TOKENS),)),
    )
    table = Table("requirements", f"{text} title", columns, handy_units=True)
    said = Facts("said", f"{text} words", (fact("n", 2, "here", label=f"{text} things"),), Shown.SENTENCE)
    lines = Facts("lines", "Lines", (fact("n", text, "here", label=f"{text} line"),))
    hidden = Facts("hidden", "Hidden", (fact("n", "not to be seen", "here"),), Shown.NOT)
    return Report(
        "check",
        f"{text} heading",
        (table, said, lines, hidden),
        Verdict(yes, f"{text} verdict", "holds"),
        (f"{text} note",),
    )


def picture(text="plain", themes=(LIGHT,), suffix="svg"):
    data = {"light": SVG, "dark": DARK_SVG}
    chart = Chart("growth", f"{text} says", f"{text} subject", (Curves(Axis("x"), Axis("y"), ()),))
    endings = [f"-{theme.name}" if index else "" for index, theme in enumerate(themes)]
    drawn = (Drawn(t, f"p/growth{e}.{suffix}", data[t.name]) for t, e in zip(themes, endings, strict=True))
    return Picture("growth", chart, tuple(drawn))


def page(name="p", checked=None, pictures=(), left_out=()):
    return PlanPage(name, checked, tuple(pictures), tuple(left_out))


def hostile():
    return page("p", report(HOSTILE), [picture(HOSTILE, (LIGHT, DARK))], [HOSTILE])


def test_texts_stay_texts_in_html():
    found, plain = (
        Page(render_index_html([hostile()])),
        Page(render_index_html([page("p", report(), [picture("", (LIGHT, DARK))], ["x"])])),
    )
    assert [tag for tag, _ in found.elements] == [tag for tag, _ in plain.elements]
    for words in ("heading", "title", "verdict", "note", "head", "words", "things", "line"):
        assert f"{HOSTILE} {words}" in found.text
    assert f"Not drawn: {HOSTILE}" in found.text
    assert "not to be seen" not in found.text
    (image,) = found.all("img")
    assert image["alt"] == f"{HOSTILE} says: {HOSTILE} subject"


def test_a_page_has_no_address_but_those_of_its_own_parts():
    found = Page(render_index_html([hostile(), page("q", None, [picture(suffix="png")])]))
    held = [
        value
        for _, attributes in found.elements
        for key, value in attributes.items()
        if key in ("src", "srcset")
    ]
    assert len(held) == 3
    assert all(value.startswith(("data:image/svg+xml;base64,", "data:image/png;base64,")) for value in held)
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert ids == ["p", "q"]
    assert [link["href"] for link in found.all("a")] == ["#p", "#q"]
    assert {tag for tag, _ in found.elements}.isdisjoint(
        {"script", "link", "iframe", "object", "base", "form"}
    )
    policy = next(m["content"] for m in found.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    style = re.search(r"<style>(.*)</style>", render_index_html([page()]), re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_both_themes_are_in_the_page_and_the_reader_chooses():
    text = render_index_html([page(pictures=[picture(themes=(LIGHT, DARK))])])
    found = Page(text)
    (source,), (image,) = found.all("source"), found.all("img")
    assert source["media"] == "(prefers-color-scheme: dark)"
    assert [base64.b64decode(a.partition("base64,")[2]) for a in (image["src"], source["srcset"])] == [
        SVG,
        DARK_SVG,
    ]
    rules = text.partition("<style>")[2].split("\n")
    assert f"--paper: {LIGHT.paper};" in rules[1]
    assert rules[2].startswith("@media (prefers-color-scheme: dark) {")
    assert f"--paper: {DARK.paper};" in rules[2]


@pytest.mark.parametrize(("theme", "data"), [(LIGHT, SVG), (DARK, DARK_SVG)], ids=["light", "dark"])
def test_one_theme_is_that_of_every_reader(theme, data):
    text = render_index_html([page(pictures=[picture(themes=(theme,))])])
    found = Page(text)
    assert found.all("source") == []
    assert base64.b64decode(found.all("img")[0]["src"].partition("base64,")[2]) == data
    assert f":root {{ color-scheme: {theme.name}; --paper: {theme.paper};" in text
    assert "prefers-color-scheme" not in text


def test_an_answer_that_is_no_is_marked_wherever_it_stands():
    found = Page(
        render_index_html([page("p", report(yes=False)), page("q", report()), page("r"), page("s", report())])
    )
    marked = [tag for tag, attributes in found.elements if attributes.get("class") == "no"]
    assert marked == ["td", "strong"]
    assert found.text.count("It requires nothing.") == 2


def test_words_stand_left_and_figures_right():
    found = Page(render_index_html([page("p", report())]))
    cells = [attributes.get("class") for tag, attributes in found.elements if tag == "td"]
    assert cells[2:5] == [None, None, "figures"]  # behind the two of the table of plans
    assert "| --- | --- | ---: |" in render_index_markdown([page("p", report())])


def test_a_page_without_pictures_and_without_plans():
    assert Page(render_index_html([])).all("img") == []
    assert render_index_markdown([]) == "# Plans\n\n| plan | answer |\n| --- | --- |\n"
    assert "figure" not in dict(Page(render_index_html([page("p", report())])).elements)


# Markdown


def unescaped(text):
    """Return a text without what is escaped in it, which GitHub shows as it is."""
    return re.sub(r"\\[^\w\s]", "", text)


def test_texts_stay_texts_in_markdown():
    text = render_index_markdown([hostile()])
    outside = unescaped("\n".join(line for line in text.split("\n") if not line.startswith("<picture>")))
    assert "<" not in outside
    assert "[" not in outside
    assert "`" not in outside
    assert "&amp;" not in outside
    tables = [line for line in outside.split("\n") if line.startswith("|")]
    assert {line.count("|") for line in tables} == {3, 4}
    (drawn,) = [line for line in text.split("\n") if "<picture>" in line]
    found = Page(drawn)
    assert [tag for tag, _ in found.elements] == ["picture", "source", "img"]
    assert found.all("img")[0]["src"] == "p/growth.svg"
    assert found.all("source")[0] == {"media": "(prefers-color-scheme: dark)", "srcset": "p/growth-dark.svg"}
    assert found.all("img")[0]["alt"].startswith("<script>alert")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tpot <= 30 ms, tokens_per_s >= 2", "tpot <= 30 ms, tokens_per_s >= 2"),
        ("a|b", "a\\|b"),
        ("a\nb", "a b"),
        ("<b>", "\\<b>"),
        ("</b><!--", "\\</b>\\<!--"),
        ("_a_ b_c", "\\_a\\_ b_c"),
        ("R&D &lt; &#60;", "R&D \\&lt; \\&#60;"),
        ("\\|", "\\\\\\|"),
        ("~~a~~ **b** ![c](d)", "\\~\\~a\\~\\~ \\*\\*b\\*\\* !\\[c\\](d)"),
    ],
)
def test_only_what_would_be_markup_is_escaped(text, expected):
    assert escaped_markdown(text) == expected


def test_the_page_has_the_report_as_it_is_anywhere_else():
    text = render_index_markdown([page("p", report(), [picture()], ["simulate: why"])])
    assert text.startswith("# Plans\n\n| plan | answer |\n| --- | --- |\n| p | plain verdict |\n\n## p\n\n")
    assert render_markdown(report()) in text
    shown = '<picture><img src="p/growth.svg" alt="plain says: plain subject"></picture>'
    assert text.endswith(f"\n\n{shown}\n\n_Not drawn: simulate: why_\n")
