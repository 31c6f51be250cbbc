"""Many random specs, each over a few steps of random batches, read and lowered: `python -m tests.lowering.many`."""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType

import torch

from tests.lowering.cases import PHASES, facts_of, random_batch, spec_of
from tests.lowering.compare import compare
from tests.lowering.random_specs import random_spec
from tests.lowering.reading_expressions import Latches

TOKENS_TRAINED = (0.0, 300.0, 500.0, 1500.0, 9000.0)
EXPRESSIONS = ("cumcount", "until", "window_min", "window_mean", "reward_to_go", "latch", "gap", "gap(", "ratio")


@dataclass(kw_only=True)
class Tally:
    """Cases by what came of them, cases whose spec holds a word, and the worst relative difference."""

    outcome: Counter[str] = field(default_factory=Counter)
    word: Counter[str] = field(default_factory=Counter)
    why: Counter[str] = field(default_factory=Counter)
    worst: float = 0.0


class Noted:
    """Adds to whatever goes wrong inside what it went wrong on."""

    def __init__(self, note: str) -> None:
        self.note = note

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is not None:
            error.add_note(self.note)


def run(rng: random.Random, tally: Tally, only_asked: bool = False) -> None:
    """One random spec over up to four steps, each with a batch of its own, the latches going from one to the next."""
    text = random_spec(rng)
    spec = spec_of(text)
    latches: Latches = MappingProxyType({})
    for step in sorted(rng.choices(PHASES, k=rng.randint(1, 4))):
        batch, tokens = random_batch(rng, longest=rng.choice((3, 12))), rng.choice(TOKENS_TRAINED)
        with Noted(f"step {step}, tokens {tokens}, latches {latches}, {batch}\n{text}"):
            found = compare(spec, facts_of(), batch, step, tokens, latches, only_asked)
        latches = found.reading.latches
        tally.worst = max(tally.worst, found.worst)
        if found.lowered is not None:
            tally.outcome["equal"] += 1
            tally.word.update(word for word in EXPRESSIONS if word in text)
        elif found.reading.contested:
            tally.outcome["contested"] += 1
            tally.why.update(found.reading.contested)
        else:
            tally.outcome["too close" if found.reading.fragile else "refused by both"] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="cases that must come out equal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-asked", action="store_true", help="give lower() only what the plan asks for at a step")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(arguments.seed)
    tally = Tally()
    began = shown = time.perf_counter()
    while tally.outcome["equal"] < arguments.cases:
        run(rng, tally, arguments.only_asked)
        if time.perf_counter() - shown > 10:
            shown = time.perf_counter()
            print(f"{shown - began:4.0f} s  {dict(tally.outcome)}", flush=True)
    print(f"words: {dict(tally.word)}")
    print(f"contested: {dict(tally.why)}")
    print(f"outcomes: {dict(tally.outcome)} in {time.perf_counter() - began:.0f} s")
    print(f"{tally.outcome['equal']} cases equal, worst relative difference {tally.worst:.2e}")


if __name__ == "__main__":
    main()
