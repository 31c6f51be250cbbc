"""Linting files one after the other, or, when they are many, by several processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trace_dsl.cli.specs import STDIN, is_run_file, lint_of_run, read_bytes
from trace_dsl.errors import SpecError, TraceError
from trace_dsl.facts import RunFacts
from trace_dsl.lint import LintResult, lint_text
from trace_dsl.rules import RuleSelection

# Starting processes pays from about this many files on.
MANY = 200
_CHUNK = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Linter:
    """How to lint one path; the answer is why it could not be read, or a result with all that is shown of it."""

    facts: RunFacts | None
    rules: RuleSelection

    def __call__(self, path: str) -> LintResult | SpecError:
        try:
            spec = read_bytes(path)
        except SpecError as error:
            return error
        if is_run_file(path, spec.text):
            command = lint_of_run(path, spec.text)
            return SpecError(f"{path} is a run file, not a spec: lint the spec with it, as in {command}")
        result = lint_text(spec.text, self.facts, path=spec.path, selection=self.rules)
        if self.facts is not None:
            from trace_dsl.plan.support import with_unsupported  # needed with a run alone

            result = with_unsupported(result, self.facts)
        # Specs and texts that nobody asks for again would only have to be sent from process to process.
        return replace(result, spec=None, sources=result.sources if result.diagnostics else ())


def lint_paths(paths: Sequence[str], linter: Linter) -> Sequence[LintResult | SpecError]:
    """What `linter` says of each path, in their order. Raises TraceError when a process was killed."""
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 16)
    if len(paths) < MANY or workers < 2 or STDIN in paths:
        return [linter(path) for path in paths]
    from concurrent.futures import ProcessPoolExecutor  # slow to import, and of use here alone
    from concurrent.futures.process import BrokenProcessPool

    pool = ProcessPoolExecutor(workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    done = False
    try:
        answers = list(pool.map(linter, paths, chunksize=_CHUNK))
        done = True
        return answers
    except BrokenProcessPool as error:
        raise TraceError("a process that was linting has been killed; lint fewer specs at a time") from error
    finally:
        # A pool that nobody waits for may still be closing its pipes when the interpreter wants to wake it at its end.
        pool.shutdown(wait=done, cancel_futures=True)
