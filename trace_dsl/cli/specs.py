"""Reading what a command is given: a spec, from a file or standard input, and a run file."""

from __future__ import annotations

import sys
from pathlib import Path

from trace_dsl.cli.terminal import STDIN
from trace_dsl.errors import SpecError
from trace_dsl.facts import RunFacts
from trace_dsl.format.files import SpecBytes, decode_spec, read_spec_bytes
from trace_dsl.lint import LintResult, SourceFile, parse_spec
from trace_dsl.model import Spec
from trace_dsl.report import full

STDIN_NAME = "<stdin>"


def read_bytes(path: str) -> SpecBytes:
    """A file, or standard input for `-`; raises SpecError when it cannot be read."""
    return decode_spec(sys.stdin.buffer.read(), STDIN_NAME) if path == STDIN else read_spec_bytes(path)


def read_meaning(path: str) -> Spec:
    """A spec without errors of the language; raises SpecError, with the errors, for any other.

    What the rules say about it does not matter here.
    """
    source = read_bytes(path)
    spec, found = parse_spec(source.text, path=source.path)
    if spec is None:
        origin = SourceFile(path="", text=source.text)
        result = LintResult(path=source.path, spec=None, diagnostics=found, sources=(origin,))
        blocks = "\n\n".join(block.plain for block in full(result))
        raise SpecError(f"{source.path} has errors:\n{blocks}")
    return spec


def run_facts(run: Path) -> RunFacts:
    """The facts of the run that a file describes; raises RunFileError, with every mistake in it."""
    # Reading a run file needs pydantic and yaml; a command that is given none starts without them.
    from megatron_bridge.run_file import load_run_facts

    facts: RunFacts = load_run_facts(run)
    return facts
