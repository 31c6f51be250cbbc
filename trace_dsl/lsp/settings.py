"""What an editor's user can set, and what holds around a spec because of it.

```json
{"runFile": "specs/demo/run.yaml", "documentation": "https://example.org/rules"}
```

`runFile`, from the workspace's folder, gives the facts of a run; `documentation` is the address of the rules' pages. A
setting that cannot be used is told in every open spec: a typing mistake must not switch a check off.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trace_dsl.configuration import nearest_configuration
from trace_dsl.errors import TraceError
from trace_dsl.facts import RunFacts
from trace_dsl.lsp.document import Surroundings
from trace_dsl.rules import DEFAULT_RULES
from trace_dsl.vocabulary import did_you_mean

SECTION = "trace-dsl"
RUN_FILE, DOCUMENTATION = "runFile", "documentation"
# Settings of the editor's own side, which stand in the same section: how to start the server, what to log.
_OF_EDITORS = ("command", "trace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`run_file` and `documentation` are empty when they are not set; `problems` says what could not be read."""

    run_file: str = ""
    documentation: str = ""
    problems: tuple[str, ...] = ()


def read_settings(given: object) -> Settings:
    """The settings among what an editor sends; None and empty values are no settings."""
    if given is None:
        return Settings()
    if not isinstance(given, dict):
        return Settings(problems=(f"the settings of {SECTION} are {given!r}, but must be an object",))
    problems = [
        f"{SECTION} has no setting {key!r}; {did_you_mean(str(key), (RUN_FILE, DOCUMENTATION)).text}"
        for key in given
        if key not in (RUN_FILE, DOCUMENTATION, *_OF_EDITORS)
    ]
    values = {}
    for key in (RUN_FILE, DOCUMENTATION):
        value = given.get(key)
        if isinstance(value, str) or value is None:
            values[key] = (value or "").strip()
        else:
            problems.append(f"{SECTION}.{key} is {value!r}, but must be a text")
    return Settings(
        run_file=values.get(RUN_FILE, ""), documentation=values.get(DOCUMENTATION, ""), problems=tuple(problems)
    )


def surroundings(folder: Path, settings: Settings, root: Path) -> Surroundings:
    """What holds in a folder: rules of the nearest pyproject.toml, the facts of the run that is set."""
    problems = list(settings.problems)
    rules, facts = DEFAULT_RULES, None
    try:
        rules = nearest_configuration(folder).rules
    except TraceError as error:
        problems.append(f"{error}; until it is mended the default rules judge")
    if settings.run_file:
        try:
            facts = _facts(root / settings.run_file)
        except TraceError as error:
            problems.append(f"{error}\nuntil it is mended rules that need a run are silent")
    return Surroundings(rules=rules, facts=facts, documentation=settings.documentation, problems=tuple(problems))


def _facts(run: Path) -> RunFacts:
    # Reading a run file needs pydantic and yaml; judging specs alone starts without them.
    from megatron_bridge.run_file import load_run_facts

    facts: RunFacts = load_run_facts(run)
    return facts
