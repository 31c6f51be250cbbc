"""200 rollouts of 4,000 tokens stay smooth: little of the page exists at a time, and less of it changes at a step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.preview.browser import browser
from tools.bench_preview import SPECS, drive, write_page

# A machine that others share holds tasks up: the best of so many tries counts, and more processes than cores slow it.
TRIES, LONGEST = 8, 200.0


def allowed() -> float:
    """Milliseconds of one task, on this machine now."""
    return LONGEST * max(1.0, 1.5 * os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.mark.browser
def test_a_large_preview_is_smooth(tmp_path: Path) -> None:
    page = write_page(tmp_path, SPECS["weights by step"], 200, 4000)
    longest = []
    with browser() as opened:
        for _ in range(TRIES):
            found = drive(opened, page)
            assert found.changed <= 10, "one property a route recolours all of its tokens"
            assert found.elements < 6000, "responses that are far away are not drawn"
            longest.append(found.longest)
            if found.longest <= allowed():
                break
    assert min(longest) <= allowed()


@pytest.mark.browser
def test_weights_by_token_change_what_is_in_view_alone(tmp_path: Path) -> None:
    page = write_page(tmp_path, SPECS["weights by token"], 30, 1000)
    with browser() as opened:
        found = drive(opened, page)
    assert 0 < found.changed < 400
    assert found.elements < 6000
