"""How long linting takes: one spec in a fresh process, and thousands in one call.

    python tools/bench_lint.py --runs 21 --specs 10000 --routes 20

The fresh process is measured beside `python -c "import lark"`, the two in turns, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SPEC = ROOT / "specs" / "demo" / "trace.trace"


def seconds(command: list[str]) -> float:
    """The wall time of a command that has to end with 0."""
    begun = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def cold(runs: int) -> None:
    """Print the median time of a process that lints one spec, of one that imports lark, and their ratio."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "python -c 'import lark'": [sys.executable, "-c", "import lark"],
        f"python -m trace_dsl lint {SPEC.relative_to(ROOT)}": [sys.executable, "-m", "trace_dsl", "lint", str(SPEC)],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        seconds(command)  # byte code and file caches
    for _ in range(runs):
        for name, command in commands.items():
            times[name].append(seconds(command))
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, median in medians.items():
        print(f"{1e3 * median:8.1f} ms  {name}  (least {1e3 * min(times[name]):.1f} ms)")
    _, lark, lint = medians.values()
    print(f"{lint / lark:8.2f}     times `import lark`, median of {runs} runs each")


def routes(rng: random.Random, number: int) -> Iterator[str]:
    """The lines of a spec: declarations, then so many routes, `rest` the last."""
    yield "spans a(cap=25%), b(cap=25%), c(cap=10%)"
    yield "teacher = self(sync=10, sees=diagnosis)"
    yield "let kl = schedule(0.5, warmup=10, anneal=linear(30))"
    for index in range(number - 1):
        label = rng.choice(("a", "b", "c", "a | b"))
        low, share = rng.randint(0, 10_000), rng.choice(("10%", "20%"))
        predicate = rng.choice(
            (
                f"len > {low}",
                f"correct and pos > {low}",
                f"wrong and entropy > {low / 100}",
                f"top(gap, {share}, over=row)",
            )
        )
        loss = rng.choice(("fkl(w=kl, topk=100, tail=bucket)", "grpo(w=1 - kl/0.5)", "grpo(clip=(0.2, 0.28)) + nll()"))
        yield f"{label} when {predicate} and step > {index}: {loss}"
    yield "rest: grpo()"


def many(specs: int, number: int) -> None:
    """Print how long one call takes to lint a folder of specs."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        for index in range(specs):
            Path(folder, f"{index:05}.trace").write_text("\n".join(routes(rng, number)) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "trace_dsl", "lint", folder, "--fail-level", "never", "--format", "concise"]
        took = seconds(command)
    print(f"{took:8.1f} s   {specs} specs of {number} routes in one call, {specs / took:.0f} specs/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=21, help="fresh processes of each kind (0: none)")
    parser.add_argument("--specs", type=int, default=10_000, help="specs linted in one call (0: none)")
    parser.add_argument("--routes", type=int, default=20, help="routes of each of them")
    given = parser.parse_args()
    print(f"Python {platform.python_version()}")
    if given.runs:
        cold(given.runs)
    if given.specs:
        many(given.specs, given.routes)


if __name__ == "__main__":
    main()
