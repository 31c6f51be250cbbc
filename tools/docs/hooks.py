"""What mkdocs does beside rendering docs/: generated pages, colours of specs, flags of rules, links to specs.

`python -m mkdocs build --strict` from the root of the repository builds the site (`make docs`).
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pygments import highlight
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tools.docs.gallery import gallery_page, preview_pages  # noqa: E402 - the path above
from tools.docs.reference_pages import lead_in, reference_pages, rule_badges, rule_table  # noqa: E402 - the path above
from tools.docs.trace_lexer import TraceLexer  # noqa: E402

RULES_PAGE = "rules.md"
# Pages that show files of the repository as they are.
SPEC_FOLDERS = {"specs/published": "The published objectives as specs", "specs/demo": "The demo's specs"}
COPIES = {"specs/demo/policy/README.md": "specs/demo/policy.md", "CHANGELOG.md": "changelog.md"}

_WIDE = frozenset(f"{folder}.md" for folder in SPEC_FOLDERS)  # lines of 120 columns

_RULE = re.compile(r"^### (?P<name>[a-z0-9-]+)\n\n(?P<start>[^\n]*)", re.M)
_LINK = re.compile(r"\]\((?!https?:|#)(?P<target>[^)#\s]+)(?P<anchor>#[^)]*)?\)")
_RUNNABLE = re.compile(r"^```(bash|python|output) .*$", re.M)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Blocks of specs are highlighted by this repository's lexer."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
    fences.append({"name": "trace", "class": "trace", "format": _spec_block, "validator": _accept})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from tables and from the repository's own files."""
    pages = reference_pages() | {"gallery.md": gallery_page()} | preview_pages()
    pages |= {f"{folder}.md": _specs_page(folder, title) for folder, title in SPEC_FOLDERS.items()}
    pages |= {place: (ROOT / source).read_text(encoding="utf-8") for source, place in COPIES.items()}
    for place, text in pages.items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rules get their flags; links to files of the repository lead to the pages that show them."""
    if page.file.src_uri == RULES_PAGE:
        markdown = _with_flags(markdown)
    markdown = _RUNNABLE.sub(lambda block: f"```{block[1]}", markdown)
    return _LINK.sub(lambda link: f"]({_inside(link['target'], page.file.src_uri)}{link['anchor'] or ''})", markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """No empty columns: pages outside a section have no navigation beside them, short ones no table of contents."""
    headings = sum(1 + len(below.children) for top in page.toc for below in top.children)
    unused = {"navigation": not page.ancestors, "toc": headings < 3 or page.file.src_uri in _WIDE}
    page.meta["hide"] = [part for part, hidden in unused.items() if hidden]
    return html


def _with_flags(markdown: str) -> str:
    """The rules page with the table of all rules, and flags in place of the words each rule starts with."""

    def flagged(rule: re.Match[str]) -> str:
        start = rule["start"].removeprefix(lead_in(rule["name"])).strip()
        return f"### {rule['name']}\n\n{rule_badges(rule['name'])}\n\n{start}"

    before, heading, after = markdown.partition("\n## ")
    return f"{before}\n{rule_table()}\n{heading}{_RULE.sub(flagged, after)}"


def _inside(target: str, source: str) -> str:
    """A link of a page, to where the site shows what it points to."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(source), target))
    folder, name = posixpath.split(path)
    place, anchor = COPIES.get(path), ""
    if folder in SPEC_FOLDERS:
        place, anchor = f"{folder}.md", f"#{name.removesuffix('.trace')}"
    elif path in SPEC_FOLDERS:
        place = f"{path}.md"
    if place is None:
        return target
    return posixpath.relpath(place, posixpath.dirname(source) or ".") + anchor


def _specs_page(folder: str, title: str) -> str:
    blocks = [f"# {title}", f"The files of `{folder}/`."]
    for path in sorted((ROOT / folder).glob("*.*")):
        info = path.suffix.removeprefix(".")
        heading = path.stem if info == "trace" else path.name
        blocks.append(f"## {heading}\n\n```{info}\n{path.read_text(encoding='utf-8').rstrip()}\n```")
    return "\n\n".join(blocks) + "\n"


# ---------------------------------------------------------------------------------------------------- blocks of specs


def _accept(language: str, inputs: dict[str, str], options: dict[str, Any], attrs: dict[str, str], md: Any) -> bool:
    """What may follow ```trace: a title, and marks such as `bad`."""
    options.update(inputs)
    return True


def _spec_block(source: str, language: str, class_name: str, options: dict[str, Any], md: Any, **_: Any) -> str:
    title = options.get("title", "")
    label = f'<span class="filename">{title}</span>' if title else ""
    marks = " ".join(name for name in options if name != "title")
    label += "".join(f'<span class="mark">{mark}</span>' for mark in ("bad", "good") if mark in options)
    body = highlight(source, TraceLexer(), HtmlFormatter(nowrap=True))
    return f'<div class="highlight {class_name} {marks}">{label}<pre><span></span><code>{body}</code></pre></div>'
