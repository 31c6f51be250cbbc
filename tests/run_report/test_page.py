"""The page in a real browser: values under the pointer, both themes, nobody kept out, no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.preview.browser import axe, browser, page_of
from tests.run_report.cases import make_run
from trace_dsl.run_report.html import Shown, html_of
from trace_dsl.run_report.read import read_runs
from trace_dsl.run_report.worst import kept_steps

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def opened() -> Iterator[object]:
    with browser() as one:
        yield one


def write_page(path: Path, *folders: Path) -> Path:
    shown = [Shown(run=run, kept=kept_steps(run), links={0: "preview.html"}, commands={}) for run in read_runs(folders)]
    path.write_text(html_of(shown, "now"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("report")
    a, b = make_run(folder / "a"), make_run(folder / "b", done=2, lr=1e-4)
    return {"one": write_page(folder / "one.html", a), "two": write_page(folder / "two.html", a, b)}


def test_a_pointer_reads_the_values_of_the_nearest_step(opened: object, pages: dict[str, Path]) -> None:
    with page_of(opened, pages["one"]) as page:
        chart = page.locator("#training-reward .chart")
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        page.mouse.move(box["x"] + box["width"] - 8, box["y"] + box["height"] / 2)
        tip = page.locator("#training-reward .tip")
        assert tip.inner_text().split() == ["step", "3", "0.625"]
        page.mouse.move(box["x"] + 60, box["y"] + box["height"] / 2)
        assert tip.inner_text().split() == ["step", "0", "0.25"]
        page.mouse.move(5, 5)
        assert tip.is_hidden()


def test_the_theme_follows_the_system_and_the_button(opened: object, pages: dict[str, Path]) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with page_of(opened, pages["one"], color_scheme="dark") as page:
        dark = page.evaluate(background)
        page.click("#theme")
        assert page.evaluate(background) != dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["one", "two"])
def test_nobody_is_kept_out(opened: object, pages: dict[str, Path], name: str, scheme: str, width: int) -> None:
    program = axe()
    with page_of(opened, pages[name], color_scheme=scheme, viewport={"width": width, "height": 900}) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate(program)
        found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        assert [(v["id"], [n["html"][:200] for n in v["nodes"][:3]]) for v in found["violations"]] == []
