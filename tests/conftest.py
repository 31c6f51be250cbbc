"""How tests are shared out over processes: by file, since fixtures are a file's; SGLang's servers in one process."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test belongs to a group that one process runs (`--dist loadgroup`)."""
    for item in items:
        group = "sglang" if item.get_closest_marker("sglang") else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))
