"""What the page says of one run: how it ended, its spec and plan, its time, its rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from trace_dsl.plan.stretches import stretches_text
from trace_dsl.preview.digits import digits
from trace_dsl.run_report.outcome import Outcome, duration, outcomes, seconds_taken, trained_tokens
from trace_dsl.run_report.parts import note, table
from trace_dsl.run_report.read import Run
from trace_dsl.run_report.times import WHOLE, slowest, times
from trace_dsl.run_report.words import chosen_settings, plan_of
from trace_dsl.run_report.worst import Kept, KeptStep, worst

_HUE = {name: n for n, (name, _, _) in enumerate(WHOLE)}


def stats(run: Run) -> str:
    """The main numbers, large."""
    lead = [_stat(f"Accuracy on {one.split}", _before_after(one), _sureness(one), big=True) for one in outcomes(run)]
    items = [_stat("Steps", f"{run.done_steps} of {run.total_steps}")]
    seconds, tokens = seconds_taken(run), trained_tokens(run)
    if seconds is not None:
        items.append(_stat("Time", duration(seconds)))
    if tokens is not None:
        items.append(_stat("Response tokens", f"{tokens:,}"))
    return "".join(f'<dl class="outcome">{"".join(group)}</dl>' for group in (lead, items) if group)


def _stat(name: str, value: str, under: str = "", *, big: bool = False) -> str:
    below = f'<dd class="under">{escape(under)}</dd>' if under else ""
    kind = "stat big" if big else "stat"
    return f'<div class="{kind}"><dt>{escape(name)}</dt><dd>{value}</dd>{below}</div>'


def _before_after(one: Outcome) -> str:
    return f'<span class="from">{one.first:.1%} →</span> {one.last:.1%}'


def _sureness(one: Outcome) -> str:
    told = f"{change(one)} (standard error) on {one.problems} problems, steps {one.first_step} to {one.last_step}"
    return told if one.gained is None else f"{told}; {one.gained} newly solved, {one.lost} no longer"


def change(one: Outcome) -> str:
    """The difference in points with its standard error."""
    return f"{100 * (one.last - one.first):+.1f} ± {100 * one.error:.1f} points"


# -------------------------------------------------------------------------------------------------------------- spec


def plan_part(run: Run) -> str:
    """The plan route by route, and the text of the spec."""
    plan, why = plan_of(run)
    words = "" if plan is None else _routes(plan)
    about = note(why) if why else ""
    if run.changes:
        about += note(f"The objective was changed at step {', '.join(map(str, run.changes))}; this is the last one.")
    return f"{words}{about}<details><summary>spec.trace</summary><pre>{escape(run.spec_text)}</pre></details>"


def _routes(plan: Mapping[str, Any]) -> str:
    rows = "".join(_route(route, plan["total_steps"]) for route in plan["routes"])
    teachers = "".join(
        f"<p class='soft small'>Teacher <code>{escape(one['name'])}</code>: {escape(_teacher(one))}</p>"
        for one in plan.get("teachers", ())
        if "what" in one
    )
    return f'<ul class="routes">{rows}</ul>{teachers}'


def _teacher(one: Mapping[str, Any]) -> str:
    """What a teacher is, what it is shown and until when it runs, as `trace-dsl plan` says it."""
    when = "never run" if one["last_step"] < 0 else f"last run at step {one['last_step']}"
    return f"{one['what']}, sees {one['sees']}; {when}"


def _route(route: Mapping[str, Any], steps: int) -> str:
    name = " | ".join(route["labels"]) + (f" when {route['when']}" if route["when"] else "")
    losses = "".join(_loss(loss, steps) for loss in route["losses"]) or "<li>no loss</li>"
    return (
        f'<li><div class="name">{escape(name)}</div><div class="takes">{escape(route["takes"])}</div>'
        f"<ul>{losses}</ul></li>"
    )


def _loss(loss: Mapping[str, Any], steps: int) -> str:
    active = [(first, last) for first, last in loss["weight"]["active"]]
    when = "at every step" if active == [(0, steps - 1)] else f"at {stretches_text(tuple(active))}"
    return (
        f"<li><code>{escape(loss['written'])}</code><div class='soft'>{escape(loss['formula'])}; weight "
        f"{escape(loss['weight']['text'])}, {when}</div></li>"
    )


def settings_part(run: Run) -> str:
    """The settings that somebody chose."""
    rows = chosen_settings(run)
    about = '<p class="soft small">What every run says for itself, and what is not as by default.</p>'
    return about + table(("setting", "value", "default"), rows, label=f"Settings of {run.name}", numbers=False)


# -------------------------------------------------------------------------------------------------------------- time


def time_part(run: Run) -> str:
    """Shares of the run's time, and the slowest steps."""
    found = times(run)
    if found is None or not found.total:
        return note("metrics.jsonl has no seconds of its steps.")
    share = {part.name: part.seconds / found.total for part in found.parts}
    look = {
        part.name: f'class="h{_HUE[part.within]}" style="flex-grow:{share[part.name]:.6f};opacity:{1 - 0.16 * n}"'
        for n, part in _numbered(found.parts)
    }
    bar = "".join(f"<i {look[part.name]}></i>" for part in found.parts)
    items = "".join(
        f"<li><i {look[part.name]}></i><span>{escape(part.name)}</span>"
        f'<span class="soft">{duration_short(part.seconds)}</span><b>{share[part.name]:.1%}</b></li>'
        for part in found.parts
    )
    label = f"Shares of {duration_short(found.total)}: {', '.join(f'{name} {of:.1%}' for name, of in share.items())}"
    beside = "".join(note(f"Phases of {one} ran beside each other, so it is shown whole.") for one in found.overlapping)
    return (
        f'<div class="share" role="img" aria-label="{escape(label)}">{bar}</div>'
        f'<ul class="parts">{items}</ul>{beside}{_slow_table(run)}'
    )


def _numbered(parts: Sequence[Any]) -> list[tuple[int, Any]]:
    """Each part with its place among those of the same whole."""
    return [(sum(other.within == part.within for other in parts[:n]), part) for n, part in enumerate(parts)]


def duration_short(seconds: float) -> str:
    """Seconds below two minutes to three digits."""
    return f"{seconds:.3g} s" if seconds < 120 else duration(seconds)


def _slow_table(run: Run) -> str:
    steps = slowest(run)
    used = [n for n in range(len(WHOLE)) if any(one.wholes[n] for one in steps)]
    heads = ("step", "seconds", *(WHOLE[n][1] for n in used))
    rows = [(str(one.step), f"{one.seconds:.3g}", *(f"{one.wholes[n]:.3g}" for n in used)) for one in steps]
    return "<h3>Slowest steps</h3>" + table(heads, rows, label=f"Slowest steps of {run.name}")


# ---------------------------------------------------------------------------------------------------------- rollouts


def rollouts_part(run: Run, steps: Sequence[KeptStep], links: Mapping[int, str], commands: Mapping[int, str]) -> str:
    """The rollouts that the run kept: counts by step with links to previews, and the worst of them.

    links: the page of a step, where one was written; commands: what makes it, for each step without.
    """
    if not steps:
        every = run.settings.get("save_rollouts_every")
        told = f"; it writes those of every {every}th step" if every else ""
        return note(f"The run has kept no rollouts{told}.")
    return _steps_table(run, steps, links) + _commands(commands) + _worst(worst(steps), run.name)


def _steps_table(run: Run, steps: Sequence[KeptStep], links: Mapping[int, str]) -> str:
    heads = ("rollouts", "mean reward", "cut", "without verdict", "without annotation")
    head = "".join(f'<th scope="col">{one}</th>' for one in ("step", *(("preview",) if links else ()), *heads))
    body = ""
    for one in steps:
        kept = one.rollouts
        cells = [
            str(len(kept)),
            digits(sum(r.reward for r in kept) / len(kept)) if kept else "",
            str(sum(r.finish == "length" for r in kept)),
            str(sum(bool(r.failure) for r in kept)),
            str(sum(bool(r.missing) for r in kept)),
        ]
        told = f'aria-label="Step {one.step}, token by token"'
        linked = f'<td><a href="{escape(links[one.step])}" {told}>token by token</a></td>' if links else ""
        body += f'<tr><th scope="row">{one.step}</th>{linked}{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Rollouts that {escape(run.name)} kept">'
        f'<table class="numbers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _commands(commands: Mapping[int, str]) -> str:
    if not commands:
        return ""
    lines = escape("\n".join(commands.values()))
    return f"<details><summary>See them token by token</summary><pre>{lines}</pre></details>"


def _worst(rollouts: Sequence[Kept], whose: str) -> str:
    if not rollouts:
        return note("None of the kept rollouts has a negative advantage, no reward, or a failure.")
    told = "".join(_rollout(one, whose) for one in rollouts)
    return (
        "<h3>Lowest advantages</h3><p class='soft small'>One of each prompt; what the annotator marked is marked.</p>"
        f"<div class='rollouts'>{told}</div>"
    )


def _rollout(one: Kept, whose: str) -> str:
    advantage = "" if one.advantage is None else f" · A {digits(one.advantage)}"
    finish = {"stop": "ended by itself", "length": "cut at the longest length", "": ""}.get(one.finish, one.finish)
    said = [finish, one.reason, f"annotation note: {one.note}" if one.note else ""]
    failures = [f"No verdict: {one.failure}"] if one.failure else []
    failures += [f"No annotation: {one.missing}"] if one.missing else []
    name = f"Step {one.step}, line {one.line}"
    facts = " · ".join((f"reward {digits(one.reward)}{advantage}", *(x for x in said if x)))
    return (
        f'<article class="rollout" aria-label="{escape(whose)}, {name}"><h4>{name}</h4>'
        f'<div class="facts">{escape(facts)}</div>'
        + "".join(f"<div class='bad'>{escape(failure)}</div>" for failure in failures)
        + f'<pre class="prompt">{escape(one.prompt.strip())}</pre>'
        f'<pre tabindex="0" role="region" aria-label="Response of {escape(whose)}, {name}">{_marked(one)}</pre>'
        "</article>"
    )


def _marked(one: Kept) -> str:
    """The response with its spans marked; where spans overlap, the first counts."""
    parts, end = [], 0
    for start, stop, label in one.spans:
        if start < end or stop > len(one.response):
            continue
        parts.append(escape(one.response[end:start]))
        parts.append(f'<mark title="{escape(label)}">{escape(one.response[start:stop])}</mark>')
        end = stop
    return "".join((*parts, escape(one.response[end:])))
