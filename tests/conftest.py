"""How tests are shared out over processes: by file, since fixtures are a file's; SGLang's servers in one process.

Drawn cases have no time limits: beside seven other processes, one that takes milliseconds may take a second.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("no limits of time", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no limits of time")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test belongs to a group that one process runs (`--dist loadgroup`)."""
    for item in items:
        group = "sglang" if item.get_closest_marker("sglang") else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish(session: pytest.Session) -> None:
    """pytest-xdist knows a group by what it adds to the names of tests; without, every process makes every fixture."""
    if session.config.getoption("loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError(f"pytest {pytest.__version__} and pytest-xdist do not share out tests by group")
