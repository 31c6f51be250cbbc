"""A preview on a terminal: the same routes, letters and numbers as on the page, at one step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.text import Text

from trace_dsl.plan.wording import route_name
from trace_dsl.preview.digits import digits
from trace_dsl.preview.page_data import route_hue, route_letter, takes_what_is_left
from trace_dsl.preview.preview import Preview, denominator_at, weight_at, weight_if_taken
from trace_dsl.preview.routing import NO_ROUTE

# The hues of the pages' theme; dark enough for light letters on every terminal. Letters tell routes apart where there
# are no colours.
COLOURS = ("blue", "dark_orange3", "green4", "magenta", "cyan", "orange4", "yellow4", "grey50")
UNKNOWN = "decided during the run"


def routes_text(found: Preview, stop: int) -> Iterator[Text]:
    """One line a route with the tokens it takes at the step, and one for each of its losses."""
    routing = found.routings[found.routing_of_stop[stop]]
    for r, planned in enumerate(found.plan.routes):
        sure = maybe = 0
        for choice in routing.choice_T:
            routes = routing.choices[choice]
            sure += routes == (r,)
            maybe += r in routes
        many = f"{sure}" if sure == maybe else f"{sure} to {maybe}"
        yield Text.assemble(
            _letter(found, (r,)), " ", (route_name(planned.route), "bold"), f": {many} of {found.batch.tokens} tokens"
        )
        for loss in (one for one in found.losses if one.route == r):
            weights = _weights(found, r, loss.loss, stop)
            yield Text(f"   {loss.channel.text}: w {weights}")


def rollout_text(found: Preview, row: int, stop: int, *, plain: bool) -> Iterator[Text]:
    """A rollout: what is known of it, its response by route, and the weights of its segments.

    plain: routes are told by letters in brackets, not by colours.
    """
    one, batch = found.file.rollouts[row], found.batch
    verdict = "no verdict" if not one.judged else "correct" if one.correct else "wrong"
    yield Text.assemble(
        (f"rollout {row + 1}", "bold"),
        f"  group {one.group_name}, {verdict}, reward {digits(one.reward)}, A {digits(batch.advantage_R[row])}, "
        f"{batch.length_R[row]} tokens",
    )
    routing = found.routings[found.routing_of_stop[stop]]
    first, last = batch.start_R[row], batch.start_R[row] + batch.length_R[row]
    body = Text()
    taken: dict[tuple[int, ...], int] = {}
    reached = 0
    for choice, tokens in groupby(range(first, last), key=lambda t: routing.choice_T[t]):
        places = list(tokens)
        routes = routing.choices[choice]
        taken.setdefault(routes, places[0])
        end = max(reached, one.intervals[places[-1] - first][1])
        _append(body, one.response[reached:end], routes, found, plain=plain)
        reached = end
    body.append(one.response[reached:])
    yield body
    for routes, token in taken.items():
        for loss in (loss for loss in found.losses if loss.route in routes):
            w, by = weight_if_taken(found, loss, stop, token), denominator_at(found, loss, stop, row)
            said = f"w {_told(w)} / {_told(by)} = {_told(weight_at(found, loss, stop, token))}"
            yield Text.assemble("  ", _letter(found, (loss.route,)), f" {loss.name}: {said} at its first token")


def _told(value: float | None) -> str:
    return UNKNOWN if value is None else digits(value)


def _append(body: Text, words: str, routes: tuple[int, ...], found: Preview, *, plain: bool) -> None:
    trains = routes != (NO_ROUTE,) and any(loss.route in routes for loss in found.losses)
    rest = len(routes) == 1 and trains and takes_what_is_left(found.plan.routes[routes[0]].route)
    if plain:
        letters = "/".join("-" if r == NO_ROUTE else route_letter(r) for r in routes)
        body.append(words if rest or not words else f"[{letters}{'?' if len(routes) > 1 else ''}:{words}]")
        return
    if rest or not trains:
        body.append(words, style="" if rest else "dim")
        return
    body.append_text(_letter(found, routes))
    style = f"underline {_colour(found, routes[0])}" if len(routes) == 1 else "italic dim"
    body.append(words, style=style)


def _letter(found: Preview, routes: Sequence[int]) -> Text:
    text = "/".join("-" if r == NO_ROUTE else route_letter(r) for r in routes)
    return Text(text + ("?" if len(routes) > 1 else ""), style=f"bold reverse {_colour(found, routes[0])}")


def _colour(found: Preview, route: int) -> str:
    return COLOURS[route_hue([one.route for one in found.plan.routes], route)]


def _weights(found: Preview, route: int, loss: int, stop: int) -> str:
    """The weight of a loss before its denominator, from the smallest to the largest over the tokens of its route."""
    one = next(x for x in found.losses if (x.route, x.loss) == (route, loss))
    routing = found.routings[found.routing_of_stop[stop]]
    tokens = [t for t, choice in enumerate(routing.choice_T) if route in routing.choices[choice]]
    values = {weight_if_taken(found, one, stop, t) for t in tokens}
    if None in values:
        return UNKNOWN
    known = sorted({digits(value): value for value in values if value is not None}.items(), key=lambda item: item[1])
    if not known:
        return "no tokens"
    return known[0][0] if len(known) == 1 else f"{known[0][0]} to {known[-1][0]}"
