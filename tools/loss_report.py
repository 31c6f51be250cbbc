"""The tables and the plot of `bench_loss.py`, out of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
KEY = ("device", "dtype", "tokens", "hidden", "vocabulary", "kl_fraction", "divergence")  # what makes a case

HEAD = """\
# The routed loss beside other ways to compute it

Written by `python tools/bench_loss.py`, whose docstring says how time and memory are measured. Every token is routed:
the KL fraction of them to a {divergence} from a teacher, the others to a clipped policy gradient. All peers that are
timed compute the same loss and the same gradients; the largest relative difference found was {difference:.0e}. Ratios
are the peer's over ours: above 1, ours is faster or smaller. The last row of a table is the time of the matrix
products alone, in chunks as large as ours. Seconds compare within a table, not between tables.

## What limits it

With U = 2 N H V operations, a row of the policy gradient takes three products (logits, hidden gradient, weight
gradient) and a row of the divergence a fourth one, the teacher's logits: (3 + r) U for a KL fraction r, and no code
that multiplies in {dtype} does with fewer. Liger's GRPO forms the logits twice, once more in its backward, and its JSD
forms them once: 4 U at any r. So where only products counted, the ratio would be 4 / (3 + r): 1.33 at r = 0, 1.29 at
r = 0.1, 1 at r = 1. What is above that is element-wise work. The column "time / products" is the most that any {dtype}
code could gain on that peer here: where it stands at 1.8, nobody is twice as fast.

"""


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY)


def _cases(rows: Iterable[Row]) -> list[tuple[tuple[Any, ...], list[Row]]]:
    return [(key, list(found)) for key, found in groupby(sorted(rows, key=_key), key=_key)]


def table(rows: Sequence[Row]) -> str:
    """Markdown: one case, one row a peer."""
    first, limit = rows[0], rows[0]["products_seconds"]
    lines = [
        f"## N {first['tokens']}, H {first['hidden']}, V {first['vocabulary']}, KL fraction {first['kl_fraction']:g} "
        f"({first['divergence']})",
        "",
        f"{first['device']}, {first['dtype']}, chunks of {first['chunk_rows']} rows.",
        "",
        f"`python tools/bench_loss.py --size {first['tokens']},{first['hidden']},{first['vocabulary']} "
        f"--kl {first['kl_fraction']:g} --divergence {first['divergence']}`",
        "",
        "| | seconds | time / ours | time / products | MiB | memory / ours |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["seconds"] is None and row["note"].startswith("left out by --quick"):
            continue
        if row["seconds"] is None:
            lines.append(f"| {row['peer']} | {row['note']} | | | | |")
            continue
        lines.append(
            f"| {row['peer']} | {row['seconds']:.3f} | {row['time_ratio']:.2f} | {row['seconds'] / limit:.2f} | "
            f"{row['memory_bytes'] / 2**20:.0f} | {row['memory_ratio']:.2f} |"
        )
    lines.append(f"| matrix products alone | {limit:.3f} | {limit / rows[0]['seconds']:.2f} | 1.00 | | |")
    return "\n".join(lines) + "\n"


def plot(cases: Sequence[tuple[tuple[Any, ...], list[Row]]], path: Path) -> None:
    """Time over the products' and peak memory of every peer, a pair of axes a case."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams.update({"svg.hashsalt": "loss", "svg.fonttype": "none"})  # the same rows, the same small file
    figure, axes = pyplot.subplots(len(cases), 2, figsize=(10, 2.2 * len(cases)), squeeze=False, layout="constrained")
    for (time_axis, memory_axis), (key, rows) in zip(axes, cases, strict=True):
        timed = [row for row in reversed(rows) if row["seconds"] is not None]
        names = [row["peer"] for row in timed]
        colors = ["tab:blue" if name == rows[0]["peer"] else "tab:gray" for name in names]
        time_axis.barh(names, [row["seconds"] / row["products_seconds"] for row in timed], color=colors)
        time_axis.axvline(1.0, color="black", linewidth=1)
        _, _, tokens, hidden, vocabulary, kl_fraction, divergence = key
        title = f"N {tokens}, H {hidden}, V {vocabulary}, KL {kl_fraction:g} ({divergence})"
        time_axis.set_title(title, loc="left", fontsize=9)
        memory_axis.barh(names, [row["memory_bytes"] / 2**20 for row in timed], color=colors)
        memory_axis.set_yticklabels([])
    for time_axis, memory_axis in (axes[0], axes[-1]):
        time_axis.set_xlabel("time / matrix products alone")
        memory_axis.set_xlabel("peak memory beyond inputs, MiB")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def write_report(rows: Sequence[Row], out: Path) -> None:
    """`out`.md and `out`.svg. Without matplotlib it says how to install it, and writes no plot."""
    out.parent.mkdir(parents=True, exist_ok=True)
    cases = _cases(rows)
    head = HEAD.format(
        divergence=" and ".join(sorted({row["divergence"] for row in rows})),
        difference=max(row["difference"] for row in rows if row["seconds"] is not None),
        dtype=" or ".join(sorted({row["dtype"] for row in rows})),
    )
    try:
        plot(cases, out.with_suffix(".svg"))
        picture = f"![time and memory of every peer]({out.name}.svg)\n\n"
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        print("no plot: matplotlib is not installed: pip install matplotlib")
        picture = ""
    text = head + picture + "\n".join(table(found) for _, found in cases)
    out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(f"written: {out.with_suffix('.md')}")
