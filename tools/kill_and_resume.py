"""Kill a training run at random moments, resume it each time, and compare what it gives with an unbroken run.

    python tools/kill_and_resume.py --kills 30 --seed 0
    python tools/kill_and_resume.py --kills 10 checkpoint.asynchronous=true layout.tp=1 layout.dp=2

Trains the demo's policy on a small batch under `--ranks` processes: once unbroken, then with SIGKILL sent to the
launcher, to one rank or to all of them, in turn in each phase (rollout, annotate, train, save) and at any moment. After
each kill the run goes on with --resume. When it reaches its end before all kills are done, another one is begun.
Weights must be the same bit for bit, and so must every metric but the times. Ends with 1 where one differs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from safetensors.torch import load_file

from megatron_bridge.rank_log import Doing, Phase, read_doing

SMALL = ("rollout.prompts=4", "rollout.group_size=4", "micro_batch=8", "evaluation.problems=8", "checkpoint.every=2")
RUN = Path("specs/demo/run.yaml")
MOMENTS = (Phase.ROLLOUT, Phase.ANNOTATE, Phase.TRAIN, Phase.SAVE, None)
LAUNCHER, ALL = "launcher", "all"
LONGEST_DELAY = 0.3  # seconds into a phase
LONGEST_LIFE = 3  # steps from a start to the kill
LONGEST_WAIT = 300.0  # seconds for a moment to come, and for what was killed to end


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill: of which process, and what the run was doing. `run`: which of the runs that were killed."""

    run: str
    victim: str
    phase: str
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """How runs are started: `ranks` processes, tensor-parallel unless `overrides` say otherwise, into `output`."""

    ranks: int
    steps: int
    output: Path
    overrides: tuple[str, ...] = ()

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Begin the run, or go on with it."""
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(self.ranks)),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"),
            *("-m", "megatron_bridge.train", str(RUN), f"output={self.output}", f"name={name}", *SMALL),
            *(f"layout.tp={self.ranks}", f"steps={self.steps}", *self.overrides, "--resume"),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        with (self.output / f"{name}.out").open("ab") as said:
            return subprocess.Popen(command, env=environment, stdout=said, stderr=said)

    def finish(self, name: str) -> None:
        """Let the run go to its end. Raises RuntimeError where it fails."""
        if self.start(name).wait() != 0:
            raise RuntimeError(f"{name} failed: see {self.output / name}.out")


def processes_of(job: subprocess.Popen[bytes], ranks: int, run: Path) -> dict[str, psutil.Process]:
    """The launcher and those ranks that have said what they do."""
    found = {LAUNCHER: psutil.Process(job.pid)}
    children = {child.pid: child for child in found[LAUNCHER].children()}
    for rank in range(ranks):
        doing = read_doing(run, rank)
        if doing is not None and doing.pid in children:
            found[f"rank {rank}"] = children[doing.pid]
    return found


def moment(job: subprocess.Popen[bytes], run: Path, rank: int, phase: Phase | None, draw: random.Random) -> bool:
    """Wait for a random moment in `phase` of a rank, in any phase for None, up to LONGEST_LIFE steps after the job has
    begun; False where the job ends before.
    """
    last: Doing | None = read_doing(run, rank)
    until = time.monotonic() + LONGEST_WAIT
    life, first = draw.randint(0, LONGEST_LIFE), None
    while job.poll() is None and time.monotonic() < until:
        time.sleep(0.0005)
        now = read_doing(run, rank)
        if now is None or (last is not None and now.pid == last.pid):
            continue
        first = now.step if first is None else first
        if now.step >= first + life and phase in (None, now.phase):
            time.sleep(draw.choice((0.0, draw.uniform(0, LONGEST_DELAY * (10 if phase is None else 1)))))
            return job.poll() is None
    return False


def kill_once(
    job: subprocess.Popen[bytes], run: Path, ranks: int, phase: Phase | None, draw: random.Random
) -> Kill | None:
    """Kill something of a running job and wait until all of it has ended; None where it ended by itself."""
    rank = draw.randrange(ranks)
    victim = draw.choice([LAUNCHER, ALL, *[f"rank {rank}"] * 2])
    if not moment(job, run, rank, phase, draw):
        return None
    there = processes_of(job, ranks, run)
    ended = list(there.values())
    if victim not in (ALL, *there):
        return None
    doing = read_doing(run, rank)
    assert doing is not None
    for process in ended if victim == ALL else [there[victim]]:
        process.kill()
    job.wait(timeout=LONGEST_WAIT)
    _, alive = psutil.wait_procs(ended, timeout=LONGEST_WAIT)
    if alive:
        raise RuntimeError(f"{run}: {alive} outlived the kill of {victim}")
    return Kill(run=run.name, victim=victim, phase=doing.phase, step=doing.step)


def broken_runs(setup: Job, kills: int, draw: random.Random) -> Iterator[Kill | str]:
    """Kill runs so often; gives each kill and, once it has reached its end, the name of each run."""
    moments = itertools.cycle(MOMENTS)
    done = 0
    for number in itertools.count():
        name = f"killed_{number}"
        while done < kills:
            job = setup.start(name)
            found = kill_once(job, setup.output / name, setup.ranks, next(moments), draw)
            if found is None:
                if job.wait(timeout=LONGEST_WAIT) != 0:
                    raise RuntimeError(f"{name} failed by itself: see {setup.output / name}.out")
                break
            done += 1
            yield found
        setup.finish(name)
        yield name
        if done == kills:
            return


def differences(whole: Path, broken: Path) -> list[str]:
    """What is not the same in two run directories: weights, and metrics but times."""
    found = []
    weights, others = (load_file(run / "model" / "model.safetensors") for run in (whole, broken))
    found += [f"weight {name}" for name in weights if not (weights[name] == others[name]).all()]
    lines, other_lines = (_metrics(run) for run in (whole, broken))
    if len(lines) != len(other_lines):
        return [*found, f"{len(lines)} steps in metrics.jsonl, {len(other_lines)} in the other"]
    for line, other in zip(lines, other_lines, strict=True):
        found += [f"{name} at step {line['step']}" for name in line if line[name] != other.get(name)]
    for name in ("accuracy_before", "accuracy_after", "trained_tokens", "teacher_forwards"):
        one, two = (json.loads((run / "summary.json").read_text())[name] for run in (whole, broken))
        found += [name] if one != two else []
    return found


def _metrics(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "time" and not k.startswith("perf/")} for line in lines]


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all runs gave the same; 1: one differs; an error where a run fails by itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="how often to kill (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of who is killed (default: 0)")
    parser.add_argument("--ranks", type=int, default=2, help="tensor-parallel processes (default: 2)")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps of a run (default: 10)")
    parser.add_argument("--output", type=Path, help="where runs go, and stay (default: a folder that is removed)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change in all runs")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        output = (options.output or Path(folder)).resolve()
        output.mkdir(parents=True, exist_ok=True)
        setup = Job(ranks=options.ranks, steps=options.steps, output=output, overrides=tuple(options.overrides))
        setup.finish("whole")
        phases: Counter[str] = Counter()
        different = 0
        for found in broken_runs(setup, options.kills, random.Random(options.seed)):
            if isinstance(found, Kill):
                phases[found.phase] += 1
                print(json.dumps(asdict(found)), flush=True)
                continue
            wrong = differences(output / "whole", output / found)
            different += bool(wrong)
            print(f"{found}: {'; '.join(wrong[:10]) or 'the same bits as the unbroken run'}", flush=True)
    told = ", ".join(f"{count} in {phase}" for phase, count in phases.most_common())
    print(f"{sum(phases.values())} kills ({told}): {different} runs differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
