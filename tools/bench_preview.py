"""How smooth a preview of many long rollouts is in Chromium: `python tools/bench_preview.py --rollouts 200`.

Prints the size of the page, the longest task of the page's thread while its slider moves, it is scrolled and a pointer
passes over it, and how many elements of the rollouts change at a step.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPECS = {
    "weights by step": (
        "spans key(cap=25%), error(cap=25%)\nteacher = self(sync=10, sees=diagnosis)\n"
        "let kl = schedule(0.5, warmup=10, anneal=linear(30))\nerror when wrong: rkl(w=kl) + grpo(w=1 - kl/0.5)\n"
        "key when correct: grpo(w=1 - kl/0.5)\nrest: grpo()\n"
    ),
    "weights by token": (
        "spans key(cap=25%), error(cap=25%)\nlet kl = schedule(0.5, warmup=10, anneal=linear(30))\n"
        "key: nll(w=kl*sigmoid(pos/200))\nrest: grpo()\n"
    ),
}
WORDS = ("we", "take", "the", "sum", "of", "all", "parts", "and", "carry", "one", "then", "check", "that", "it", "fits")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
_WATCH = """() => {
  window.tasks = [];
  new PerformanceObserver((list) => list.getEntries().forEach((one) => tasks.push(one.duration)))
    .observe({ type: 'longtask', buffered: false });
  window.changed = 0;
  const count = (one) => { changed += one.addedNodes.length + (one.type === 'attributes'); };
  new MutationObserver((list) => list.forEach(count))
    .observe(document.getElementById('list'), { subtree: true, childList: true, attributes: true });
}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothness:
    """longest: the longest task in milliseconds (0: none of 50 ms or more); tasks: how many; changed: elements of the
    rollouts that a step changes, the largest of all steps; elements: how many the page has.
    """

    longest: float
    tasks: int
    changed: int
    elements: int


def write_rollouts(path: Path, rollouts: int, tokens: int) -> None:
    """Rollouts of words with spans of both labels."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for n in range(rollouts):
            texts = [rng.choice(WORDS) + (" " if rng.random() > 0.08 else ".\n") for _ in range(tokens)]
            response = "".join(texts)
            starts = [rng.randrange(len(response) * 9 // 10) for _ in range(12)]
            spans = [
                {"label": rng.choice(("key", "error")), "start": s, "end": min(s + 200, len(response)), "kind": "slip"}
                for s in starts
            ]
            line = {"prompt": f"problem {n // 8}", "response": response, "tokens": texts, "spans": spans}
            file.write(json.dumps({**line, "reward": float(rng.random() < 0.5), "diagnosis": "slip"}) + "\n")


def write_page(folder: Path, spec: str, rollouts: int, tokens: int) -> Path:
    """The page of a preview, as the command writes it."""
    (folder / "bench.trace").write_text(spec, encoding="utf-8")
    if not (folder / "bench.jsonl").exists():
        write_rollouts(folder / "bench.jsonl", rollouts, tokens)
    words = ["preview", "bench.trace", "--rollouts", "bench.jsonl", "--html", "bench.html"]
    subprocess.run([sys.executable, "-m", "trace_dsl", *words], cwd=folder, check=True, capture_output=True)
    return folder / "bench.html"


def drive(browser: Any, page_file: Path) -> Smoothness:
    """Move the slider through the run, scroll through the page and pass a pointer over it, once loaded."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(page_file.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    page.evaluate("document.querySelector('.rollout').scrollIntoView()")
    page.wait_for_timeout(500)
    page.evaluate(_WATCH)
    steps = page.evaluate("STOPS")
    changed = 0
    for stop in range(0, steps, max(1, steps // 40)):
        changed = max(changed, page.evaluate(_ONE_STEP, stop))
    for _ in range(40):
        page.mouse.wheel(0, 1500)
        page.wait_for_timeout(20)
    for n in range(40):
        page.mouse.move(200 + 10 * n, 300 + 12 * n)
    page.wait_for_timeout(200)
    longest, tasks = page.evaluate("[Math.max(0, ...tasks), tasks.length]")
    elements = page.evaluate("document.querySelectorAll('*').length")
    page.close()
    return Smoothness(longest=longest, tasks=tasks, changed=changed, elements=elements)


_ONE_STEP = """async (stop) => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  await frame();
  window.changed = 0;
  const slider = document.getElementById('step');
  slider.value = stop;
  slider.dispatchEvent(new Event('input', { bubbles: true }));
  await frame();
  await frame();
  return changed;
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=4000, help="of each rollout")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        sys.exit("there is no chromium on the PATH: make browser")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=list(FLAGS))
        for name, spec in SPECS.items():
            began = time.perf_counter()
            page = write_page(Path(folder), spec, arguments.rollouts, arguments.tokens)
            took = time.perf_counter() - began
            found = drive(browser, page)
            print(
                f"{name}: {arguments.rollouts} x {arguments.tokens} tokens, {page.stat().st_size / 1e6:.1f} MB in "
                f"{took:.1f} s; longest task {found.longest:.0f} ms of {found.tasks} long ones; a step changes "
                f"{found.changed} of {found.elements} elements"
            )
        browser.close()


if __name__ == "__main__":
    main()
