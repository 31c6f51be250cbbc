"""What a command is given: specs as files, folders of them or standard input, and a run file."""

from __future__ import annotations

import sys
from pathlib import Path

from trace_dsl.errors import SpecError
from trace_dsl.facts import RunFacts
from trace_dsl.lint import LintResult, SourceFile, parse_spec
from trace_dsl.model import Spec
from trace_dsl.report import full
from trace_dsl.spec_files import SpecBytes, read_spec_bytes, read_stream

STDIN = "-"
STDIN_NAME = "<stdin>"


def specs_below(paths: list[str], suffix: str = ".trace") -> list[str]:
    """Files as they are named, folders as the specs below them; raises SpecError for a folder without any.

    suffix: what the names of the files end with that are looked for.
    """
    found: list[str] = []
    for path in paths:
        if path == STDIN or not Path(path).is_dir():
            found.append(path)
            continue
        below = sorted(str(spec) for spec in Path(path).rglob(f"*{suffix}") if not spec.is_dir())
        if not below:
            raise SpecError(f"there is no *{suffix} file in {path}")
        found.extend(below)
    return list(dict.fromkeys(found))


def read_bytes(path: str) -> SpecBytes:
    """A file, or standard input for `-`; raises SpecError when it cannot be read."""
    return read_stream(sys.stdin.buffer, STDIN_NAME) if path == STDIN else read_spec_bytes(path)


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
