"""What the pages that commands write share: one theme, and HTML that needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files

# No page asks the network for anything, whatever it is given to show.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)


def theme() -> str:
    """The style sheet of all pages: colours of light and dark, type, spacing."""
    return asset("trace_dsl.page", "theme.css")


def asset(package: str, *parts: str) -> str:
    """A text file that a package ships."""
    return files(package).joinpath(*parts).read_text(encoding="utf-8")


def document(*, title: str, styles: tuple[str, ...], body: str, scripts: tuple[str, ...]) -> str:
    """A whole page: `body` is HTML, styles and scripts are put inline."""
    sheets = "\n".join(styles)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{sheets}\n</style>\n"
        f"</head>\n<body>\n{body}\n"
        + "\n".join(f"<script>\n{script}\n</script>" for script in scripts)
        + "\n</body>\n</html>\n"
    )


def inline_json(identifier: str, value: Mapping[str, object]) -> str:
    """Data in a page, which no text in it can end or turn into HTML."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f'<script type="application/json" id="{identifier}">{text}</script>'
