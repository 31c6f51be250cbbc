"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def signal_when_parent_dies(number: int) -> None:
    """Ask Linux to send this process a signal when its parent dies, however it dies; nothing elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
