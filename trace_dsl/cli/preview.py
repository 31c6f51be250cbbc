"""`trace-dsl preview`: what a spec does to every token of real rollouts, as a page or on the terminal."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from trace_dsl.cli.exits import ExitCode, refusing
from trace_dsl.cli.specs import read_bytes
from trace_dsl.cli.terminal import console
from trace_dsl.errors import RunFileError, SpecError, TraceError
from trace_dsl.facts import RunFacts, run_of_length
from trace_dsl.lint import lint_text
from trace_dsl.plan import compile_plan
from trace_dsl.report import full

if TYPE_CHECKING:
    from megatron_bridge.tasks.base import Task
    from trace_dsl.preview.page_data import TeacherPrompt
    from trace_dsl.preview.preview import Preview
    from trace_dsl.preview.rollouts import RolloutFile

DEFAULT_STEPS = 100
PAGE = "preview.html"


def preview(
    spec: Annotated[str, typer.Argument(help="The spec, a .trace file; - reads it from standard input.")],
    rollouts: Annotated[
        Path,
        typer.Option("--rollouts", metavar="FILE.jsonl", help="One rollout a line: a run's, or your own."),
    ],
    run: Annotated[
        Path | None, typer.Option("--run", metavar="RUN.yaml", help="The run file: its steps, task and templates.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Steps of the run, without --run. Default: the run's that wrote the file, or {DEFAULT_STEPS}."
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="OUT", help=f"Where the page goes. Default: {PAGE}, here."),
    ] = None,
    terminal: Annotated[bool, typer.Option("--terminal", help="Show it here; no page is written.")] = False,
    step: Annotated[
        int | None,
        typer.Option(min=0, help="The step to show first. Default: the one that the file is of, or 0."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many rollouts --terminal shows.")] = 8,
) -> None:
    """Show which loss each token of real rollouts gets, how strongly, at any step.

    A line of FILE.jsonl has prompt, response and reward; spans are [{"label", "start", "end"}], in characters. What a
    run writes to NAME/rollouts can be given as it is. Needs neither torch nor a run file; the page needs no network.

    What a run measures (entropy, gap, ...) is known where a line's signals give it, else shown as decided during the
    run. Denominators count the rollouts of the file as the global batch.

    Exits with 0, with 1 when the spec has errors, with 2 when a file or a step cannot be used.

    Example: trace-dsl preview spec.trace --rollouts rollouts.jsonl
    """
    from trace_dsl.preview.preview import preview as make_preview
    from trace_dsl.preview.rollouts import CONTEXTS, read_rollouts

    with refusing():
        if html is not None and terminal:
            raise TraceError("--html writes a page and --terminal none: give one of them")
        if run is not None and steps is not None:
            raise TraceError(
                f"--steps {steps}: the run file says how many steps the run has; leave out --steps or --run"
            )
        source = read_bytes(spec)
        file = read_rollouts(rollouts)
        facts, known = _facts(run, steps, file)
        if step is not None and step >= facts.total_steps:
            raise TraceError(f"--step {step}: the last step of a run of {facts.total_steps} is {facts.total_steps - 1}")
        result = lint_text(source.text, facts if run else None, path=source.path)
    found = [block.plain for block in full(result)]
    if found:
        print("\n\n".join(found), file=sys.stderr)
    if result.errors or result.spec is None:
        print(f"error: {source.path} has errors and cannot be previewed", file=sys.stderr)
        raise typer.Exit(ExitCode.FINDINGS)
    with refusing(ExitCode.FINDINGS):
        plan = compile_plan(result.spec, facts)
    start = step if step is not None else min(file.step or 0, facts.total_steps - 1)
    with refusing(), _task(run) as task:
        shown = make_preview(
            result.spec, plan, file, contexts=task.contexts if task else CONTEXTS, at=start if terminal else None
        )
        notes = _notes(shown)
        if terminal:
            _show(shown, start, known, notes, limit)
        else:
            _write(shown, html or Path(PAGE), known, notes, start, _teacher_prompt(task))


def _facts(run: Path | None, steps: int | None, file: RolloutFile) -> tuple[RunFacts, str]:
    """The facts of the run, and a sentence that says where they come from."""
    if run is not None:
        from megatron_bridge.run_file import load_run_facts

        facts: RunFacts = load_run_facts(run)
        return facts, f"A run of {facts.total_steps} steps, as {run.name} says."
    if steps is not None:
        return run_of_length(steps), f"A run of {steps} steps, as --steps says."
    written_for = _steps_of_writer(file)
    if written_for is not None:
        return run_of_length(written_for), f"A run of {written_for} steps, as the plan of the run that wrote them says."
    return run_of_length(DEFAULT_STEPS), (
        f"A run of {DEFAULT_STEPS} steps: no run file is given. Say --run RUN.yaml or --steps N for another length."
    )


def _steps_of_writer(file: RolloutFile) -> int | None:
    """The steps of the run in whose directory a file stands, by the plan that it keeps there; None elsewhere."""
    beside = Path(file.path).resolve().parent.parent / "plan.json"
    if file.step is None or not beside.is_file():
        return None
    try:
        steps = json.loads(beside.read_text(encoding="utf-8")).get("total_steps")
    except (OSError, ValueError, AttributeError) as error:
        raise RunFileError(f"{beside} is not the plan of a run: give --run RUN.yaml or --steps N") from error
    return steps if isinstance(steps, int) and steps > 0 else None


@contextlib.contextmanager
def _task(run: Path | None) -> Iterator[Task | None]:
    if run is None:
        yield None
        return
    from megatron_bridge.run_file import load_run

    with contextlib.closing(load_run(run, to_train=False).open_task()) as task:
        yield task


def _teacher_prompt(task: Task | None) -> TeacherPrompt:
    """How a teacher's prompt is made: as the task does it, or by the templates that tasks have by default."""
    from megatron_bridge.annotation import Problem
    from megatron_bridge.contexts import TEMPLATES, Context, Diagnosis, Feedback, Sibling, Solution, render
    from megatron_bridge.templates import parse_template

    templates = {sees: parse_template(text) for sees, text in TEMPLATES.items()}
    classes: dict[str, Callable[[str], Context]] = {
        "diagnosis": Diagnosis,
        "solution": Solution,
        "sibling": Sibling,
        "feedback": Feedback,
    }

    def prompt_of(prompt: str, sees: str, text: str) -> str:
        context = classes[sees](text)
        if task is None:
            return render(templates, prompt, context)
        return task.teacher_prompt(Problem(prompt=prompt, data=None), context)

    return prompt_of


def _notes(shown: Preview) -> list[str]:
    """What a reader should know of the file: what is left out, what is not known."""
    from trace_dsl.preview.batch import signals_left_out

    notes = []
    file, batch = shown.file, shown.batch
    known = {label.name for label in shown.plan.labels}
    others = sorted({span.label for span in batch.spans} - known)
    if others:
        notes.append(f"Spans of {', '.join(others)} are not routed: the spec has no such labels.")
    for loss in shown.losses:
        if loss.context is not None and loss.context not in batch.contexts:
            notes.append(
                f"No line has {loss.context!r}, so whether {loss.name} takes a rollout is decided during the run: a "
                f"teacher sees the {loss.context}."
            )
    left_out = signals_left_out(file.rollouts, shown.spec)
    if left_out:
        notes.append(f"Left out, as the spec has no such teacher: {', '.join(left_out)}.")
    differing = sum(
        one.advantage is not None and abs(one.advantage - mine) > 1e-6 * max(1.0, abs(mine))
        for one, mine in zip(file.rollouts, batch.advantage_R, strict=True)
    )
    if differing:
        notes.append(
            f"The advantage of {differing} lines is another than the one that follows from the rewards of this file's "
            "groups by this spec; the latter is shown."
        )
    if file.ignored:
        keys = ", ".join(f"{key} ({count} lines)" for key, count in file.ignored)
        notes.append(f"Keys that mean nothing here: {keys}.")
    return list(dict.fromkeys(notes))


def _write(shown: Preview, out: Path, known: str, notes: list[str], start: int, teacher_prompt: TeacherPrompt) -> None:
    from megatron_bridge.atomic import write_text
    from trace_dsl.preview.html import html_of

    page = html_of(shown, run=known, notes=notes, start=start, teacher_prompt=teacher_prompt)
    try:
        write_text(out, page)
    except OSError as error:
        raise SpecError(f"{out} cannot be written: {(error.strerror or str(error)).lower()}") from error
    batch = shown.batch
    print(f"{out}: {batch.rows} rollouts, {batch.tokens} tokens, {len(shown.stops)} steps; open it in a browser")


def _show(shown: Preview, step: int, known: str, notes: list[str], limit: int) -> None:
    from trace_dsl.preview.terminal import rollout_text, routes_text

    screen = console()
    plain = screen.color_system is None
    screen.print(Text(f"step {step} of {shown.plan.facts.total_steps}. {known}"))
    for note in notes:
        screen.print(Text(f"note: {note}"))
    screen.print()
    for line in routes_text(shown, 0):
        screen.print(line)
    for row in range(min(limit, shown.batch.rows)):
        screen.print()
        for line in rollout_text(shown, row, 0, plain=plain):
            screen.print(line)
    if shown.batch.rows > limit:
        screen.print(Text(f"\n{shown.batch.rows - limit} more rollouts: --limit {shown.batch.rows} shows them"))
