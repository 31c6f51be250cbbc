"""`trace-dsl prove`: what holds for every token a run can meet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from trace_dsl.cli.specs import read_meaning
from trace_dsl.cli.terminal import console, print_wrapped
from trace_dsl.errors import SpecError, TraceError
from trace_dsl.plan.wording import route_name
from trace_dsl.prove import Proof, covers, disjoint


def prove(
    spec: Annotated[str, typer.Argument(help="The spec; - reads it from standard input.")],
    covering: Annotated[
        bool, typer.Option("--covers", help="Every token the model writes is taken by a route.")
    ] = False,
    disjointness: Annotated[
        bool, typer.Option("--disjoint", help="No token fits two routes, defaults such as `rest` aside.")
    ] = False,
) -> None:
    """Go through every combination of labels, outcomes and predicates. Without an option, prove both.

    Exits with 0 when it holds, 1 with a counterexample in words, 2 when the spec cannot be read or has too many cases.

    Example: trace-dsl prove specs/demo/trace.trace --covers
    """
    both = covering == disjointness
    try:
        read = read_meaning(spec)
        claims: list[tuple[str, Proof]] = []
        if covering or both:
            claims.append(("every token is taken", _known(covers(read))))
        if disjointness or both:
            claims.append(("no token fits two routes", _known(disjoint(read))))
    except TraceError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    screen = console()
    for claim, proof in claims:
        for line in _lines(claim, proof):
            print_wrapped(screen, line)
    if any(proof.counterexamples for _, proof in claims):
        raise typer.Exit(1)


def _known(proof: Proof | None) -> Proof:
    if proof is None:
        raise SpecError("the predicates tell too many cases apart to go through them all")
    return proof


def _lines(claim: str, proof: Proof) -> Iterator[Text]:
    if not proof.counterexamples:
        yield Text(f"proved: {claim} ({proof.cases} cases)", style="green")
        return
    yield Text(f"not so: {claim}", style="red")
    for example in proof.counterexamples:
        yield Text(f"  {example.token}")
        if example.routes:
            first, second = (route_name(route) for route in example.routes)
            yield Text(f"    goes to `{first}`, and fits `{second}` too")
        else:
            yield Text("    goes nowhere")
