"""The process in which a foreign function runs: JSON lines in, JSON lines out (see `megatron_bridge.workers`)."""

from __future__ import annotations

import importlib
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from megatron_bridge.with_parent import signal_when_parent_dies

LONGEST_REASON = 300


def load(target: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Any]:
    """The function that a target describes, as one of a request (a mapping) that returns JSON.

    `kind` is "python" (`function` "module:name", `folder` to look for it first, called with the request's items as
    keywords), "math" or "reasoning_gym". Raises ImportError or ValueError where there is none.
    """
    match target["kind"]:
        case "python":
            function = _imported(target["function"], target["folder"])
            return lambda request: function(**request)
        case "math":
            from megatron_bridge.verify.mathematics import grade_math

            return grade_math
        case "reasoning_gym":
            from megatron_bridge.verify.gym import GymGrader

            return GymGrader(target["dataset"], target["config"])
        case other:
            raise ValueError(f"no such kind of function: {other!r}")


def _imported(path: str, folder: str) -> Callable[..., Any]:
    module_name, _, name = path.partition(":")
    sys.path.insert(0, folder)
    module = importlib.import_module(module_name)
    function = getattr(module, name, None)
    if not callable(function):
        raise ImportError(f"{module.__file__} has no function {name!r}")
    return function  # type: ignore[no-any-return]


def serve(target: Mapping[str, Any]) -> int:
    """Answer requests until the other end closes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what foreign code prints goes to the error output
    sys.stdout = sys.stderr
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def send(answer: Mapping[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        function = load(target)
    except BaseException as error:  # a foreign module may raise anything: it is told, and the process ends
        send({"unusable": _told(error)})
        return 1
    send({"ready": True})
    for line in requests:
        try:
            value = function(json.loads(line))
            answer = json.dumps({"value": value})
        except BaseException as error:  # so may a foreign function, and that is the answer to this call
            send({"raised": _told(error)})
            continue
        answers.write(answer + "\n")
        answers.flush()
    return 0


def _told(error: BaseException) -> str:
    """The error in one line."""
    try:
        text = " ".join(str(error).split())
    except RecursionError:
        text = ""
    return f"{type(error).__name__}: {text}"[:LONGEST_REASON]


def main() -> int:
    target = json.loads(sys.argv[1])
    signal_when_parent_dies(signal.SIGKILL)
    limit = math.floor(target["memory_gb"] * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return serve(target)


if __name__ == "__main__":
    sys.exit(main())
