"""The documentation builds as a site that says what `trace-dsl explain` says and opens without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.pages import ROOT
from trace_dsl.checks import RULES
from trace_dsl.explain import Kind, entries, rule_pages
from trace_dsl.explain.pages import Paragraph
from trace_dsl.rules import LANGUAGE_RULES, RuleInfo

PAGE_OF = {
    Kind.STATEMENT: "reference/statements.html",
    Kind.LOSS: "reference/losses.html",
    Kind.ARGUMENT: "reference/arguments.html",
    Kind.SIGNAL: "reference/signals.html",
    Kind.FUNCTION: "reference/functions.html",
    Kind.VALUE: "reference/values.html",
    Kind.RULE: "rules.html",
}
# What the theme's script would ask for, were there a repository's address, a drawing, or a browser of before 2020.
ASKED_FOR_NOTHING = {"api.github.com", "unpkg.com"}


class Page(HTMLParser):
    """The text of a page, its anchors, and what a browser fetches in order to show it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: list[str] = []
        self.loads: list[str] = []
        self.classes: set[str] = set()
        self._words: list[str] = []
        self._shown = True
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._shown = tag not in ("script", "style")
        given = {name: value or "" for name, value in attrs}
        self.anchors += [given["id"]] if "id" in given else []
        self.classes |= set(given.get("class", "").split())
        self.loads += [given[name] for name in ("src", "srcset", "poster", "data") if name in given]
        self.loads += [given["href"]] if tag in ("link", "use", "image") and "href" in given else []
        self.loads += re.findall(r"url\(([^)]*)\)", given.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self._shown:
            self._words.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._shown = True  # scripts and styles hold no other tag

    @property
    def text(self) -> str:
        return " ".join("".join(self._words).split())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stdout
    return folder


def build(configuration: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` does, into another folder."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(configuration), "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def page(site: Path, place: str) -> Page:
    return Page((site / place).read_text(encoding="utf-8"))


def plain(text: str) -> str:
    return " ".join(text.replace("`", "").split())


def test_a_browser_fetches_nothing_from_a_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for path in pages:
        shown = Page(path.read_text(encoding="utf-8"))
        assert not [load for load in shown.loads if re.match(r"(?:[a-z]+:)?//", load)], path.name
        assert not shown.classes & {"mermaid", "md-source", "arithmatex"}, path.name
        if path.name != "404.html":  # which a server shows at any address
            local = [load.partition("?")[0] for load in shown.loads if load and not load.startswith(("#", "data:"))]
            assert not [load for load in local if not (path.parent / load).is_file()], path.name
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", text), path.name
    hosts = {
        host
        for path in site.rglob("*.js")
        if path.parent.name != "lunr"
        for host in re.findall(r"[\"'`]https?://([\w.]+)", path.read_text(encoding="utf-8"))
    }
    assert hosts <= ASKED_FOR_NOTHING


@pytest.mark.parametrize("kind", list(Kind))
def test_the_site_says_what_explain_says(site: Path, kind: Kind) -> None:
    shown = page(site, PAGE_OF[kind])
    for entry in entries():
        if entry.kind is kind:
            assert plain(entry.meaning) in shown.text
            assert plain(entry.usage) in shown.text
            assert all(plain(note) in shown.text for note in entry.notes)
            where = page(site, "reference/schedules.html") if entry.name == "schedule" else shown
            assert all(plain(argument.text.meaning) in where.text for argument in entry.arguments)
            assert entry.name in shown.anchors or entry.kind is Kind.ARGUMENT
    assert len(shown.anchors) == len(set(shown.anchors))


def flags(info: RuleInfo) -> str:
    words = [info.severity.value]
    words += ["pedantic"] if info.pedantic else []
    words += ["with a run file"] if info.needs_facts else []
    return " ".join(words)


def test_rules_have_a_place_of_their_own_with_their_flags(site: Path) -> None:
    shown = page(site, "rules.html")
    for name, info in RULES.items():
        assert name in shown.anchors
        # the words that stand for the flags in rules.md have become the flags themselves
        assert f"{name}¶ {flags(info)}" in shown.text
        (text, *_) = (part.text for part in rule_pages()[name].parts if isinstance(part, Paragraph))
        if info not in LANGUAGE_RULES:
            lead_in = flags(info).replace(" pedantic", ", pedantic").replace(" with a", ", with a").capitalize() + ". "
            assert text.startswith(lead_in), name
            text = text.removeprefix(lead_in)
        first = re.sub(r" \(docs/[^)]*\)", "", plain(text)).split(". ")[0]
        assert f"{flags(info)} {first}" in shown.text, name


def test_specs_are_coloured_and_marked(site: Path) -> None:
    rules = (site / "rules.html").read_text(encoding="utf-8")
    assert '<span class="nf">fkl</span>' in rules
    assert rules.count('<span class="mark">bad</span>') >= len(RULES)
    assert '<span class="filename">first.trace</span>' in (site / "tutorial.html").read_text(encoding="utf-8")
    fences = [path.name for path in site.rglob("*.html") if "```" in path.read_text(encoding="utf-8")]
    assert not fences


def test_every_published_spec_is_shown_and_linked(site: Path) -> None:
    shown = page(site, "specs/published.html")
    table = (site / "published.html").read_text(encoding="utf-8")
    for path in (ROOT / "specs" / "published").glob("*.trace"):
        assert plain(path.read_text(encoding="utf-8")) in plain(shown.text)
        assert path.stem in shown.anchors
        assert f'href="specs/published.html#{path.stem}"' in table


def test_the_gallery_shows_every_published_spec_and_leads_to_its_preview(site: Path) -> None:
    text = (site / "gallery.html").read_text(encoding="utf-8")
    shown = page(site, "gallery.html")
    for path in (ROOT / "specs" / "published").glob("*.trace"):
        assert path.stem in shown.anchors
        assert f'href="gallery/{path.stem}.html"' in text
        assert (site / "gallery" / f"{path.stem}.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    trace = text.partition('id="trace"')[2].partition("</h2>")[2].partition("<h2")[0]
    assert "KL(teacher || student) · per sequence" in trace
    assert "0.5 at step 0, 0.5 at step 10, 0 at step 40, 0 at step 99" in trace
    assert re.search(r"weights, copied every 10 steps, sees diagnosis; last run at step 39", trace), "the plan"
    # the words of the key span in the colour of its route, those of the error span in another's
    assert re.search(r'class="r0"[^>]*> ?quarter<', trace)
    assert re.search(r'class="r1"[^>]*> ?25%<', trace)
    assert re.search(r'class="r7"[^>]*> ?Answer:<', trace), "the plain rest is grey, as in the preview"
    # a schedule that only the advantage reads is drawn too
    assert "0.5 at step 0, 0 at step 50" in text.partition('id="rlsd"')[2].partition("</h2>")[2].partition("<h2")[0]


def test_a_link_to_nowhere_fails_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "rules.md").write_text("# Rules\n\n## What the engine refuses\n")
    (docs / "index.md").write_text("# Start\n\n[gone](gone.md) and [no section](rules.md#gone)\n")
    configuration = tmp_path / "mkdocs.yml"
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[0]
    configuration.write_text(text.replace("tools/docs/hooks.py", str(ROOT / "tools/docs/hooks.py")))
    done = build(configuration, tmp_path / "site")
    assert done.returncode != 0
    assert "'gone.md'" in done.stdout
    assert "'#gone'" in done.stdout
