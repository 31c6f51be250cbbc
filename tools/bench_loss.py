"""The routed loss beside other ways to compute it: seconds, peak memory, and the distance to its matrix products.

    python tools/bench_loss.py                                     # writes docs/benchmarks/loss.md and loss.svg
    python tools/bench_loss.py --quick --json loss.json            # under a minute, small sizes, nothing compiled
    python tools/bench_loss.py --size 512,256,151936 --kl 0.1 --json part.json
    python tools/bench_loss.py --report part.json other.json       # tables and plot out of earlier runs

One process runs all peers in turns, so that whatever else the machine does reaches all alike. Before anything is
timed, every peer's loss and gradients are compared with ours; a peer that differs is reported and not timed.

- On CPU, time is CPU seconds of this process on one thread (`torch.set_num_threads(1)`), the median over the rounds.
  Memory is the largest sum of live bytes that torch's allocator handed out during one forward and backward, both
  gradients included and inputs not: exact, from the allocation events that `torch.profiler` records. Scratch space that
  a library takes from malloc itself is not in it.
- On CUDA, time is between two events, memory is `torch.cuda.max_memory_allocated` over what was allocated before.
- The limit is the time of the matrix products alone: 3 N H V for the policy gradient and 4 N H V for the divergence
  (the teacher's logits), in chunks as large as ours, on tensors that exist already.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from loss_peers import PEERS, Case, Peer, Size
from loss_report import write_report
from peak_memory import peak_bytes
from rich.console import Console
from rich.table import Table
from torch import Tensor

from megatron_bridge.chunk_rows import default_chunk_rows

SIZES = ("2048,512,32768", "512,256,151936")
QUICK_SIZE = "512,256,8192"
FRACTIONS = (0.0, 0.1, 0.25, 1.0)
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}  # of gradients, relative in the 2-norm
CONSOLE = Console()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One peer in one case. Ratios are the peer's over ours; None where it was not timed, and `note` says why."""

    peer: str
    kl_fraction: float
    tokens: int
    hidden: int
    vocabulary: int
    divergence: str
    device: str
    dtype: str
    chunk_rows: int
    seconds: float | None = None
    memory_bytes: int | None = None
    time_ratio: float | None = None
    memory_ratio: float | None = None
    products_seconds: float | None = None
    difference: float | None = None
    note: str | None = None


def gradients(peer: Peer, case: Case) -> tuple[Tensor, ...]:
    """(loss, hidden gradient, weight gradient) of one forward and backward."""
    loss = peer.loss(case)
    return (loss.detach(), *torch.autograd.grad(loss, (case.hidden_NH, case.weight_VH)))


def difference(measured: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest relative difference, in the 2-norm for gradients. A NaN is infinite."""
    found = [float((m.float() - e.float()).norm() / e.float().norm()) for m, e in zip(measured, expected, strict=True)]
    return max((d if d == d else float("inf")) for d in found)


def seconds(run: Callable[[], object], device: str) -> float:
    gc.collect()
    if device == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1000
    start = time.process_time()
    run()
    return time.process_time() - start


def products_alone(case: Case, chunk_rows: int) -> Callable[[], None]:
    """The matrix products of the loss and nothing else."""
    weight_VH, hidden_NH = case.weight_VH.detach(), case.hidden_NH.detach()
    rows = min(chunk_rows, case.size.tokens)
    logits_NV = torch.zeros(rows, case.size.vocabulary, dtype=weight_VH.dtype, device=weight_VH.device)
    hidden_gradient_NH, weight_gradient_VH = torch.zeros_like(hidden_NH[:rows]), torch.zeros_like(weight_VH)
    divergence_rows = case.divergence_K.numel()

    def run() -> None:
        for start in range(0, case.size.tokens, rows):
            part = hidden_NH[start : start + rows]
            count = len(part)
            torch.mm(part, weight_VH.t(), out=logits_NV[:count])
            torch.mm(logits_NV[:count], weight_VH, out=hidden_gradient_NH[:count])
            weight_gradient_VH.addmm_(logits_NV[:count].t(), part)
        for start in range(0, divergence_rows, rows):
            part = hidden_NH[start : min(start + rows, divergence_rows)]
            torch.mm(part, weight_VH.t(), out=logits_NV[: len(part)])

    return run


def why_not(peer: Peer, case: Case, args: argparse.Namespace) -> str | None:
    need = peer.wide(case) * case.size.tokens * case.size.vocabulary * 4 / 2**30
    if need > args.memory_limit:
        return f"needs about {need:.0f} GiB, --memory-limit is {args.memory_limit:g}"
    if args.quick and peer.slow_start:
        return "left out by --quick: it compiles first"
    return peer.missing() or peer.skips(case)


def compare(case: Case, peers: Sequence[Peer], args: argparse.Namespace) -> list[Row]:
    """Check, then time in turns, all peers of a case; the first of `peers` is ours."""
    size, device = case.size, args.device
    chunk_rows = case.chunk_rows or default_chunk_rows(size.tokens, size.vocabulary, device)
    common = {
        "kl_fraction": case.kl_fraction,
        **asdict(size),
        "divergence": case.divergence,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} thread",
        "dtype": str(case.hidden_NH.dtype).removeprefix("torch."),
        "chunk_rows": chunk_rows,
    }
    notes, found, memory = {}, {}, {}
    expected = None
    for peer in peers:
        notes[peer.name] = why_not(peer, case, args)
        if notes[peer.name] is not None:
            continue
        measured = gradients(peer, case)  # compiles, too
        expected = measured if expected is None else expected
        found[peer.name] = difference(measured, expected)
        del measured
        if found[peer.name] > TOLERANCE[case.hidden_NH.dtype]:
            notes[peer.name] = f"differs by {found[peer.name]:.1e}: not timed"
            continue
        memory[peer.name] = peak_bytes(lambda peer=peer: gradients(peer, case), device)
    del expected
    times: dict[str, list[float]] = {name: [] for name in memory}
    products = products_alone(case, chunk_rows)
    products()
    products_times = []
    for _ in range(args.repeats):
        for peer in peers:
            if peer.name in times:
                times[peer.name].append(seconds(lambda peer=peer: gradients(peer, case), device))
        products_times.append(seconds(products, device))
    middle = {name: statistics.median(values) for name, values in times.items()}
    ours = peers[0].name
    return [
        Row(
            peer=peer.name,
            **common,
            seconds=middle.get(peer.name),
            memory_bytes=memory.get(peer.name),
            time_ratio=middle[peer.name] / middle[ours] if peer.name in middle else None,
            memory_ratio=memory[peer.name] / memory[ours] if peer.name in memory else None,
            products_seconds=statistics.median(products_times),
            difference=found.get(peer.name),
            note=notes[peer.name],
        )
        for peer in peers
    ]


def show(rows: Sequence[Row]) -> None:
    """One case's table on the terminal."""
    first, ours = rows[0], rows[0].seconds
    limit = first.products_seconds
    table = Table(
        title=f"N {first.tokens}, H {first.hidden}, V {first.vocabulary}, KL fraction {first.kl_fraction:g} "
        f"({first.divergence}), {first.dtype}, {first.device}, chunks of {first.chunk_rows} rows",
        title_justify="left",
    )
    for heading in ("", "seconds", "time / ours", "time / products", "MiB", "memory / ours", "difference"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in rows:
        if row.seconds is None:
            table.add_row(row.peer, row.note)
            continue
        table.add_row(
            row.peer,
            f"{row.seconds:.3f}",
            f"{row.time_ratio:.2f}",
            f"{row.seconds / limit:.2f}",
            f"{row.memory_bytes / 2**20:.0f}",
            f"{row.memory_ratio:.2f}",
            f"{row.difference:.0e}",
        )
    table.add_row("matrix products alone", f"{limit:.3f}", f"{limit / ours:.2f}", "1.00")
    CONSOLE.print(table)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", action="append", help=f"N,H,V; may be repeated (default {' and '.join(SIZES)})")
    parser.add_argument("--kl", type=float, action="append", help=f"KL fractions (default {FRACTIONS})")
    parser.add_argument("--divergence", choices=("jsd", "fkl", "rkl"), default="jsd")
    parser.add_argument("--peer", action="append", choices=[peer.name for peer in PEERS[1:]], help="only these")
    parser.add_argument("--repeats", type=int, help="rounds; medians are shown (default 5, with --quick 2)")
    parser.add_argument("--chunk-rows", type=int, help="rows of our chunks (default: by rule)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default float32, on cuda bfloat16")
    parser.add_argument("--memory-limit", type=float, default=8.0, help="GiB; a peer that needs more is left out")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SIZE}, no compiled peers, under a minute")
    parser.add_argument("--json", type=Path, help="write the rows there, and no report")
    parser.add_argument("--report", type=Path, nargs="+", help="write the report of these files of rows; run nothing")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/loss"), help="report, without its suffix")
    return parser.parse_args()


def main() -> int:
    warnings.filterwarnings("ignore")
    args = parse_arguments()
    if args.report:
        rows = [row for path in args.report for row in json.loads(path.read_text(encoding="utf-8"))]
        write_report(rows, args.out)
        return 0
    torch.set_num_threads(1)
    if args.repeats is None:
        args.repeats = 2 if args.quick else 5
    dtype = getattr(torch, args.dtype or ("bfloat16" if args.device == "cuda" else "float32"))
    peers = [peer for peer in PEERS if not args.peer or peer is PEERS[0] or peer.name in args.peer]
    rows: list[Row] = []
    for size in args.size or ([QUICK_SIZE] if args.quick else SIZES):
        for kl_fraction in args.kl or FRACTIONS:
            case = Case.make(
                Size.parse(size),
                kl_fraction=kl_fraction,
                divergence=args.divergence,
                device=args.device,
                dtype=dtype,
                chunk_rows=args.chunk_rows,
            )
            found = compare(case, peers, args)
            show(found)
            rows += found
            if args.json is not None:
                args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    largest = max(row.difference for row in rows if row.difference is not None)
    CONSOLE.print(f"largest relative difference: {largest:.1e}; torch {torch.__version__}, {platform.machine()}")
    if args.json is None:
        write_report([asdict(row) for row in rows], args.out)
    return 1 if any(row.note and row.note.startswith("differs") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
