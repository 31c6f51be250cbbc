"""`trace-dsl prove`: what holds for every token a run can meet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.text import Text

from trace_dsl.cli.exits import ExitCode, refusing
from trace_dsl.cli.formats import OutputFormat, print_json
from trace_dsl.cli.specs import STDIN, read_meaning
from trace_dsl.cli.terminal import console, print_wrapped
from trace_dsl.errors import SpecError
from trace_dsl.model import Spec
from trace_dsl.plan.wording import loss_text, losses_text, route_name
from trace_dsl.prove import Counterexample, Proof, Untrained, covers, disjoint, implies


@dataclass(frozen=True, slots=True, kw_only=True)
class _Against:
    """A counterexample: a token in words, what becomes of it, and the same as JSON fields."""

    token: str
    told: tuple[str, ...]
    fields: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """`how`: what was gone through, in words."""

    name: str
    text: str
    cases: int
    against: tuple[_Against, ...]
    how: str


def prove(
    spec: Annotated[str, typer.Argument(help="The spec; - reads it from standard input.")],
    covering: Annotated[
        bool, typer.Option("--covers", help="Every token the model writes is taken by a route.")
    ] = False,
    disjointness: Annotated[
        bool, typer.Option("--disjoint", help="No token fits two routes, defaults such as `rest` aside.")
    ] = False,
    other: Annotated[
        str | None,
        typer.Option(
            "--implies",
            metavar="OTHER",
            help="Every loss that SPEC gives a token, the spec OTHER gives it too. Kernels and their settings are "
            "compared, weights and denominators are not.",
        ),
    ] = None,
    output: Annotated[OutputFormat, typer.Option("--format", help="text for people, json for programs.")] = (
        OutputFormat.TEXT
    ),
) -> None:
    """Prove what holds for every token, by going through all combinations of labels, outcomes and predicates.

    Without an option, that every token is taken and that no token fits two routes.

    Exits with 0 when it holds, 1 with a counterexample in words, 2 when a spec cannot be read or has too many cases.

    Example: trace-dsl prove specs/demo/grpo.trace --implies specs/demo/trace.trace
    """
    neither = not covering and not disjointness and other is None
    with refusing():
        if spec == other == STDIN:
            raise SpecError("standard input holds one spec: name a file for the other")
        read = read_meaning(spec)
        claims = []
        if covering or neither:
            claims.append(_routed("covers", "every token is taken", _known(covers(read)), read))
        if disjointness or neither:
            claims.append(
                _routed("disjoint", "no token fits two routes, later defaults aside", _known(disjoint(read)), read)
            )
        if other is not None:
            claims.append(_implied(spec, other, _known_implied(read, read_meaning(other))))
    match output:
        case OutputFormat.TEXT:
            screen = console()
            for claim in claims:
                for line in _lines(claim):
                    print_wrapped(screen, line)
        case OutputFormat.JSON:
            print_json(spec=spec, claims=[_fields(claim) for claim in claims])
    if any(claim.against for claim in claims):
        raise typer.Exit(ExitCode.FINDINGS)


_TOO_MANY = "the predicates tell too many cases apart to go through them all"


def _known(proof: Proof[Counterexample] | None) -> Proof[Counterexample]:
    if proof is None:
        raise SpecError(_TOO_MANY)
    return proof


def _known_implied(spec: Spec, other: Spec) -> Proof[Untrained]:
    proof = implies(spec, other)
    if proof is None:
        raise SpecError(_TOO_MANY)
    return proof


def _routed(name: str, text: str, proof: Proof[Counterexample], spec: Spec) -> _Claim:
    against = []
    for example in proof.counterexamples:
        names = [route_name(route) for route in example.routes]
        told = f"goes to `{names[0]}`, and fits `{names[1]}` too" if names else "goes nowhere"
        against.append(_Against(token=example.token, told=(told,), fields={"routes": names}))
    how = _counted(proof.cases) if proof.cases else _without_cases(spec)
    return _Claim(name=name, text=text, cases=proof.cases, against=tuple(against), how=how)


def _counted(cases: int) -> str:
    return f"{cases} case{'' if cases == 1 else 's'}"


def _without_cases(spec: Spec) -> str:
    """Why no two routes had to be compared."""
    if len(spec.routes) < 2:
        return "there is one route" if spec.routes else "there are no routes"
    others = ", or reads other rollouts" if len({route.rows for route in spec.routes}) > 1 else ""
    return f"no cases to go through: each later route is the default for what those above leave{others}"


def _implied(spec: str, other: str, proof: Proof[Untrained]) -> _Claim:
    against = []
    for example in proof.counterexamples:
        missing = " + ".join(loss_text(channel) for channel in example.losses)
        there = example.other_route
        here = f"{spec}: `{route_name(example.route)}` trains {losses_text(example.route)}"
        if there is None:
            elsewhere = f"{other}: no route takes it"
        else:
            trains = f"trains {losses_text(there)}" if there.channels else "trains nothing"
            elsewhere = f"{other}: `{route_name(there)}` {trains}"
        told = (here, elsewhere, f"only {spec} trains it with {missing}")
        fields: dict[str, object] = {
            "route": route_name(example.route),
            "other_route": None if there is None else route_name(there),
            "losses": [loss_text(channel) for channel in example.losses],
        }
        against.append(_Against(token=example.token, told=told, fields=fields))
    text = f"every loss that {spec} gives a token, {other} gives it too (whatever the weights)"
    return _Claim(name="implies", text=text, cases=proof.cases, against=tuple(against), how=_counted(proof.cases))


def _lines(claim: _Claim) -> Iterator[Text]:
    if not claim.against:
        yield Text(f"proved: {claim.text} ({claim.how})", style="green")
        return
    yield Text(f"not so: {claim.text}", style="red")
    for example in claim.against:
        yield Text(f"  {example.token}")
        for line in example.told:
            yield Text(f"    {line}")


def _fields(claim: _Claim) -> dict[str, object]:
    return {
        "claim": claim.name,
        "text": claim.text,
        "holds": not claim.against,
        "cases": claim.cases,
        "counterexamples": [{"token": example.token, **example.fields} for example in claim.against],
    }
