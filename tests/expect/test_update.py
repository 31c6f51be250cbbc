"""`--update` writes what was found where it stands, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from trace_dsl.expect.compare import is_as_expected
from trace_dsl.expect.file import read_expectations
from trace_dsl.expect.run import run_cases
from trace_dsl.expect.update import write_found

SPEC = """spans key, error
error: rkl(w=0.5, per=const(0.5))
key: pg(adv=2*A, w=3, per=const(0.5)) + nll(w=pos, per=const(0.5))
"""
HEAD = """# a comment
steps: 8

rollouts:
  a: {reward: 1, tokens: 3, spans: {key: [0, 2]}}  # another
  b: {tokens: 2, spans: {error: [0, 1]}, has: [diagnosis]}

cases:
"""


def updated(folder: Path, cases: str, head: str = HEAD) -> str:
    """The text of a file after --update, without its head. What it says then holds: a second time changes nothing."""
    (folder / "x.trace").write_text(SPEC, encoding="utf-8")
    path = folder / "x.expect.yaml"
    path.write_bytes((head + cases).encode())
    file = read_expectations(str(path))
    write_found(file, run_cases(file))
    text = path.read_bytes().decode()
    again = read_expectations(str(path))
    outcomes = run_cases(again)
    assert all(map(is_as_expected, outcomes)), text
    assert write_found(again, outcomes) == ()
    assert path.read_bytes().decode() == text
    assert text.startswith(head)
    assert sorted(p.name for p in folder.iterdir()) == ["x.expect.yaml", "x.trace"]
    return text.removeprefix(head)


EVERYTHING = """\
    routes: {a: "22.", b: "1."}
    weights:
      error/rkl: {b: 0.5}
      key/pg: {a: 3}
      key/nll: {a: [0, 1, 0]}
    advantages:
      key/pg: {a: 1.41421}
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # what holds stays as it is written
        (
            "  - name: n\n    step: 1\n    weights: {error/rkl: {b: 1/2}, key/pg: {a: 3.0}}  # why\n",
            "  - name: n\n    step: 1\n    weights: {error/rkl: {b: 1/2}, key/pg: {a: 3.0}}  # why\n",
        ),
        # one number of several
        (
            "  - name: n\n    step: 1\n    weights:\n      error/rkl: {b: 1/2}  # why\n"
            "      key/nll: {a: 7}  # here\n    A: {a: 3}\n",
            "  - name: n\n    step: 1\n    weights:\n      error/rkl: {b: 1/2}  # why\n"
            "      key/nll: {a: [0, 1, 0]}  # here\n    A: {a: 0.707107}\n",
        ),
        # a block of rollouts, and one that is not named
        (
            "  - name: n\n    weights:\n      key/pg:\n        a: 1\n        b: 0\n\n    # below\n    step: 1\n",
            "  - name: n\n    weights:\n      key/pg: {a: 3}\n\n    # below\n    step: 1\n",
        ),
        (
            "  - name: n\n    step: 1\n    weights: {error/rkl: 0}\n",
            "  - name: n\n    step: 1\n    weights: {error/rkl: {b: 0.5}}\n",
        ),
        (
            "  - {name: n, step: 1, routes: {a: \"111\", b: '1.'}}\n",
            "  - {name: n, step: 1, routes: {a: \"22.\", b: '1.'}}\n",
        ),
        # nothing is stated
        ("  - name: n\n    step: 1\n", f"  - name: n\n    step: 1\n{EVERYTHING}"),
        (
            "  - name: n\n    step: 1\n\n  # next\n  - name: m\n    step: 2\n    A: {a: 0}\n",
            f"  - name: n\n    step: 1\n{EVERYTHING}\n  # next\n  - name: m\n    step: 2\n    A: {{a: 0.707107}}\n",
        ),
        (
            "  - name: n\n    weights: {}\n    step: 1\n",
            "  - name: n\n    weights:\n      error/rkl: {b: 0.5}\n      key/pg: {a: 3}\n"
            "      key/nll: {a: [0, 1, 0]}\n"
            '    step: 1\n    routes: {a: "22.", b: "1."}\n    advantages:\n      key/pg: {a: 1.41421}\n',
        ),
        (
            "  - name: n\n    weights:\n    step: 1\n",
            "  - name: n\n    weights:\n      error/rkl: {b: 0.5}\n      key/pg: {a: 3}\n"
            "      key/nll: {a: [0, 1, 0]}\n"
            '    step: 1\n    routes: {a: "22.", b: "1."}\n    advantages:\n      key/pg: {a: 1.41421}\n',
        ),
        (
            "  - {name: n, step: 1}\n",
            '  - {name: n, step: 1, routes: {a: "22.", b: "1."}, weights: {error/rkl: {b: 0.5}, key/pg: {a: 3}, '
            "key/nll: {a: [0, 1, 0]}}, advantages: {key/pg: {a: 1.41421}}}\n",
        ),
        ("  - name: n\n    step: 1", f"  - name: n\n    step: 1\n{EVERYTHING}".removesuffix("\n")),
    ],
)
def test_what_is_written(tmp_path: Path, before: str, after: str) -> None:
    assert updated(tmp_path, before) == after


def test_line_ends_stay(tmp_path: Path) -> None:
    head = HEAD.replace("\n", "\r\n")
    assert updated(tmp_path, "  - name: n\r\n    step: 1\r\n    A: {a: 0}\r\n", head) == (
        "  - name: n\r\n    step: 1\r\n    A: {a: 0.707107}\r\n"
    )


def test_numbers_are_as_exact_as_the_tolerance(tmp_path: Path) -> None:
    head = HEAD.replace("steps: 8", "steps: 8\ntolerance: 1e-12")
    assert updated(tmp_path, "  - {name: n, step: 1, A: {a: 0}}\n", head) == (
        "  - {name: n, step: 1, A: {a: 0.7071067811865}}\n"
    )


def test_any_stale_numbers_are_mended(tmp_path: Path) -> None:
    """Files of every layout, with numbers that were never right."""
    rng = random.Random(3)
    for _ in range(60):
        lines = []
        for index in range(rng.randint(1, 3)):
            block = rng.random() < 0.7
            stated = rng.sample(
                [
                    f'routes: {{a: "{rng.choice(("111", "22.", "..."))}", b: "1."}}',
                    f"weights: {{error/rkl: {rng.choice(('0', '{b: 1/2}', '{a: [1, 2, 3]}'))}, key/pg: {{a: 3}}}}",
                    f"advantages: {{key/pg: {rng.choice(('0', '1', '{a: [1, 0, 0], b: 2}'))}}}",
                    f"A: {{a: {rng.choice(('0', 'sqrt(0.5)'))}}}",
                ],
                rng.randint(0, 4),
            )
            keys = [f"name: n{index}", f"step: {rng.randint(0, 7)}", *stated]
            separator = rng.choice(("\n    ", "  # said\n    ", "\n\n    ", "\n    # said\n    "))
            lines.append("  - " + (separator.join(keys) if block else "{" + ", ".join(keys) + "}") + "\n")
            lines.append(rng.choice(("", "\n", "  # between\n")))
        text = updated(tmp_path, "".join(lines))
        assert text.count("#") == "".join(lines).count("#"), text
        for file in tmp_path.iterdir():
            file.unlink()
