"""The Ledger task: its text, verifier, annotator, splits, teacher prompts and corpus."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from megatron_bridge.annotation import AnnotatedSpan, Annotation, Problem
from megatron_bridge.contexts import Diagnosis, Solution
from megatron_bridge.tasks import get_task
from megatron_bridge.tasks.ledger import is_held_out
from megatron_bridge.tasks.ledger_corpus import Habits, draw_example, write_response
from megatron_bridge.tasks.ledger_steps import (
    Ledger,
    Op,
    OpKind,
    StepType,
    answer,
    draw_ledger,
    problem_types,
    prompt_text,
    right_response,
)

ROOT = Path(__file__).resolve().parents[2]
TASK = get_task("ledger")

LEDGER = Ledger(
    start=34,
    ops=(
        Op(kind=OpKind.ADD, a=47),
        Op(kind=OpKind.SUBTRACT, a=38),
        Op(kind=OpKind.IF_ODD, a=7, b=5),
        Op(kind=OpKind.SUBTRACT_NEGATIVE, a=12),
        Op(kind=OpKind.ADD_PRODUCT, a=5, b=6),
        Op(kind=OpKind.SWAP),
    ),
)
PROMPT = "34 | +47 | -38 | if odd +7 else -5 | -(-12) | +5 * 6 | swap =\n"
RIGHT = (
    "34 + 47 carry 81\n81 - 38 borrow 43\n43 odd + 07 carry 50\n50 + 12 = 62\n"
    "5 * 6 = 30\n62 + 30 = 92\n92 swap 29\nanswer 29"
)
PROBLEM = Problem(prompt=PROMPT, data=LEDGER)

# A right line, what is written in its place, and the type that shows. Later lines go on from the right value,
# at which the annotator must not look.
WRONG_LINES = [
    ("34 + 47 carry 81", "34 + 47 = 71", "carry"),
    ("34 + 47 carry 81", "34 + 47 carry 71", "carry"),
    ("81 - 38 borrow 43", "81 - 38 = 53", "borrow"),
    ("43 odd + 07 carry 50", "43 even - 05 borrow 38", "case_split"),
    ("43 odd + 07 carry 50", "43 odd - 05 borrow 38", "case_split"),
    ("43 odd + 07 carry 50", "43 + 07 carry 50", "case_split"),
    ("43 odd + 07 carry 50", "43 odd + 07 = 40", "carry"),
    ("50 + 12 = 62", "50 - 12 borrow 38", "sign"),
    ("50 + 12 = 62", "50 + 12 carry 72", "carry"),
    ("5 * 6 = 30", "62 + 05 = 67", "order"),
]
# A wrong line that shows no type: a copying slip, a slip in plain digits, or no Ledger line at all.
UNTYPED_LINES = [
    ("34 + 47 carry 81", "35 + 47 carry 82"),
    ("34 + 47 carry 81", "34 + 46 carry 80"),
    ("34 + 47 carry 81", "34 plus 47"),
    ("34 + 47 carry 81", "34 +"),
    ("34 + 47 carry 81", ""),
    ("50 + 12 = 62", "50 + 12 = 63"),
    ("50 + 12 = 62", "50 * 2 = 00"),
    ("5 * 6 = 30", "5 * 6 = 35"),
    ("5 * 6 = 30", "6 * 5 = 30"),
    ("62 + 30 = 92", "62 - 30 = 32"),
    ("92 swap 29", "92 + 29 carry 21"),
]


def covered(annotation: Annotation, text: str) -> list[str]:
    return [text[span.start : span.end] for span in annotation.spans]


def test_the_text_of_a_problem() -> None:
    assert prompt_text(LEDGER) == PROMPT
    assert "\n".join([*(line.text for line in right_response(LEDGER)), f"answer {answer(LEDGER)}"]) == RIGHT
    assert problem_types(LEDGER) == ("carry", "borrow", "case_split", "carry", "sign", "order")
    for line in right_response(LEDGER):
        assert len(line.roles) == len(line.text.split(" "))
        assert all(kind in line.roles for kind in line.types)


@pytest.mark.parametrize(
    "response, reward",
    [
        (RIGHT, 1.0),
        ("answer 29", 1.0),
        (RIGHT.replace("answer 29", "answer 30"), 0.0),
        (RIGHT.replace("answer 29", "answer 2"), 0.0),
        (RIGHT + "\n", 0.0),
        (RIGHT + "\nanswer 29", 0.0),
        (RIGHT + " or 30", 0.0),
        (RIGHT.replace("29", "٢٩"), 0.0),
        ("29", 0.0),
        ("", 0.0),
    ],
)
def test_the_verifier_reads_the_one_answer_line(response: str, reward: float) -> None:
    assert TASK.verify(PROBLEM, response) == reward


@pytest.mark.parametrize("line, written, kind", WRONG_LINES)
def test_a_wrong_line_is_marked_with_its_type(line: str, written: str, kind: str) -> None:
    response = RIGHT.replace(line, written).replace("answer 29", "answer 30")
    annotation = TASK.annotate(PROBLEM, response, correct=False)
    assert annotation.diagnosis == kind
    assert [(span.label, span.kind) for span in annotation.spans] == [("error", kind)]
    assert covered(annotation, response) == [written]


def test_only_the_first_wrong_line_is_marked() -> None:
    response = RIGHT.replace("81 - 38 borrow 43", "81 - 38 = 53").replace("50 + 12 = 62", "50 - 12 borrow 38")
    assert covered(TASK.annotate(PROBLEM, response, correct=False), response) == ["81 - 38 = 53"]


def test_a_line_over_the_budget_is_marked_from_its_wrong_word_on() -> None:
    problem = Problem(
        prompt="", data=Ledger(start=71, ops=(Op(kind=OpKind.IF_ODD, a=7, b=5), Op(kind=OpKind.ADD, a=11)))
    )
    response = "71 even - 05 borrow 66\n66 + 11 = 77\nanswer 77"  # 45 characters: at most 11
    assert covered(TASK.annotate(problem, response, correct=False), response) == ["even - 05 b"]
    problem = Problem(prompt="", data=Ledger(start=71, ops=(Op(kind=OpKind.ADD, a=19), Op(kind=OpKind.ADD, a=11))))
    response = "71 + 19 = 80\n80 + 11 = 91\nanswer 91"  # 35 characters: at most 8
    assert covered(TASK.annotate(problem, response, correct=False), response) == ["= 80"]
    problem = Problem(prompt="", data=Ledger(start=62, ops=(Op(kind=OpKind.ADD_PRODUCT, a=5, b=6),)))
    response = "62 + 05 = 67\n67 * 6 = 02\nanswer 02"  # 34 characters: at most 8
    assert covered(TASK.annotate(problem, response, correct=False), response) == ["62 + 05 "]


@pytest.mark.parametrize("line, written", UNTYPED_LINES)
def test_no_guess_at_a_slip_of_no_type(line: str, written: str) -> None:
    response = RIGHT.replace(line, written).replace("answer 29", "answer 30")
    assert TASK.annotate(PROBLEM, response, correct=False) == Annotation()


@pytest.mark.parametrize(
    "response",
    [
        *(
            "",
            "\n",
            "answer",
            "answer 29",
            "answer 30",
            "garbled",
            "34 + 47 = 71",
            "\n\n\nanswer 30",
            "٣٤\nanswer 30",
        ),
        RIGHT[:40],
        RIGHT.replace("34 + 47 carry 81", "34 + 47 = 71")[:-1],
        RIGHT.replace("answer 29", "answer 30"),
        RIGHT.replace("\nanswer", "\n29 + 01 carry 30\nanswer"),
        RIGHT.replace("92 swap 29\n", ""),
        RIGHT.replace("34 + 47 carry 81", "34 + 47 = 71") + "\nanswer 29",
    ],
)
def test_empty_cut_and_garbled_responses_get_no_span(response: str) -> None:
    assert TASK.annotate(PROBLEM, response, correct=False) == Annotation()
    assert TASK.annotate(PROBLEM, response.replace("answer 29", "answer 30"), correct=True) == Annotation()


def test_the_decisive_lines_of_a_correct_response() -> None:
    annotation = TASK.annotate(PROBLEM, RIGHT, correct=True)
    assert annotation == Annotation(
        spans=(
            AnnotatedSpan(label="key", kind="carry", start=0, end=16),
            AnnotatedSpan(label="key", kind="carry", start=47, end=55),
        ),
        diagnosis="carry",
    )  # no context is hard and carry is the commonest type; 113 characters: at most 28 are marked
    assert covered(annotation, RIGHT) == ["34 + 47 carry 81", "carry 50"]
    easy = Ledger(start=36, ops=(*LEDGER.ops[:1], Op(kind=OpKind.ADD, a=28), *LEDGER.ops[3:4], LEDGER.ops[0]))
    response = "36 + 47 carry 83\n83 + 28 carry 11\n11 + 12 = 23\n23 + 47 carry 70\nanswer 70"
    annotation = TASK.annotate(Problem(prompt="", data=easy), response, correct=True)
    assert covered(annotation, response) == ["36 + 47 carry 83"]  # 73 characters: a second line is over 18


def test_hard_contexts_come_first() -> None:
    ledger = Ledger(start=25, ops=tuple(Op(kind=OpKind.ADD, a=a) for a in (16, 48, 22, 12)))
    response = "25 + 16 carry 41\n41 + 48 = 89\n89 + 22 carry 11\n11 + 12 = 23\nanswer 23"
    annotation = TASK.annotate(Problem(prompt="", data=ledger), response, correct=True)
    assert covered(annotation, response) == ["89 + 22 carry 11"]
    ops = (
        *(Op(kind=OpKind.ADD, a=16), Op(kind=OpKind.ADD, a=19)),
        *(Op(kind=OpKind.SUBTRACT, a=25), Op(kind=OpKind.ADD, a=17)),
    )
    response = "25 + 16 carry 41\n41 + 19 carry 60\n60 - 25 borrow 35\n35 + 17 carry 52\nanswer 52"
    annotation = TASK.annotate(Problem(prompt="", data=Ledger(start=25, ops=ops)), response, correct=True)
    assert covered(annotation, response) == ["60 - 25 borrow 35"]  # one hard borrow, three easy carries


def test_spans_stand_in_the_order_of_the_text() -> None:
    factors = ((2, 3), (2, 8), (2, 2), (2, 6))
    ledger = Ledger(start=10, ops=tuple(Op(kind=OpKind.ADD_PRODUCT, a=a, b=b) for a, b in factors))
    response = "\n".join([*(line.text for line in right_response(ledger)), "answer 48"])
    annotation = TASK.annotate(Problem(prompt="", data=ledger), response, correct=True)
    assert covered(annotation, response) == [
        "2 * 3 = 06",
        "2 * 8 = 16",
    ]  # the second is hard, so it is chosen first


def test_a_response_without_a_decision_has_no_key() -> None:
    ledger = Ledger(start=10, ops=(Op(kind=OpKind.ADD, a=10), Op(kind=OpKind.ADD, a=11)))
    response = "10 + 10 = 20\n20 + 11 = 31\nanswer 31"
    assert TASK.annotate(Problem(prompt="", data=ledger), response, correct=True) == Annotation()


PIECES = [
    "34",
    "47",
    " + ",
    " - ",
    " carry ",
    " = ",
    " odd",
    "\n",
    "answer ",
    "29",
    "x",
    "٣",
    *RIGHT.split("\n"),
]


@given(
    seed=st.integers(0, 10**9),
    ops=st.integers(1, 6),
    hard=st.sampled_from([0.0, 0.3, 1.0]),
    cut=st.integers(0, 200),
    noise=st.lists(st.tuples(st.integers(0, 200), st.sampled_from(PIECES)), max_size=3),
)
@example(seed=0, ops=1, hard=0.0, cut=0, noise=[])
def test_spans_are_valid_and_cover_at_most_a_quarter(
    seed: int, ops: int, hard: float, cut: int, noise: list[tuple[int, str]]
) -> None:
    rng = random.Random(seed)
    problem = Problem(prompt="", data=draw_ledger(rng, ops=ops, swaps=rng.randint(0, 1)))
    habits = Habits(hard=hard, easy=hard / 10, labelled=0.0)
    response = write_response(rng, problem.data, label=None, habits=habits)
    for place, piece in noise:
        response = response[:place] + piece + response[place:]
    response = response[: len(response) - cut] if cut < 20 else response
    for correct in (False, True):
        annotation = TASK.annotate(problem, response, correct=correct)
        ends = [0] + [at for span in annotation.spans for at in (span.start, span.end)] + [len(response)]
        assert ends == sorted(ends)
        assert all(span.start < span.end and "\n" not in text for span, text in marked(annotation, response))
        assert sum(span.end - span.start for span in annotation.spans) * 4 <= len(response)
        assert {span.label for span in annotation.spans} <= {"key" if correct else "error"}
        assert {span.kind for span in annotation.spans} == ({annotation.diagnosis} - {None})


def marked(annotation: Annotation, text: str) -> list[tuple[AnnotatedSpan, str]]:
    return list(zip(annotation.spans, covered(annotation, text), strict=True))


def test_every_wrong_response_of_the_corpus_writer_is_annotated_with_its_first_mistake() -> None:
    rng = random.Random("annotated")
    found = dict.fromkeys(StepType, 0)
    for problem in TASK.problems(split="train", seed=3, start=0, count=400):
        response = write_response(rng, problem.data, label=None, habits=Habits())
        if TASK.verify(problem, response):
            continue
        annotation = TASK.annotate(problem, response, correct=False)
        assert annotation.diagnosis in problem_types(problem.data)
        found[StepType(annotation.diagnosis)] += 1
    assert min(found.values()) > 0, found


def test_problems_depend_on_split_seed_and_index_only() -> None:
    whole = TASK.problems(split="train", seed=0, start=0, count=20)
    assert list(whole[5:12]) == list(TASK.problems(split="train", seed=0, start=5, count=7))
    assert whole != TASK.problems(split="train", seed=1, start=0, count=20)
    assert list(TASK.problems(split="train", seed=0, start=3, count=0)) == []


def test_problems_and_annotations_do_not_depend_on_the_hash_seed() -> None:
    program = (
        "import random\n"
        "from megatron_bridge.tasks import get_task\n"
        "from megatron_bridge.tasks.ledger_corpus import draw_example\n"
        "from megatron_bridge.tasks.ledger_steps import right_response\n"
        "task = get_task('ledger')\n"
        "for split in ('train', 'eval', 'ood'):\n"
        "    for p in task.problems(split=split, seed=7, start=2, count=40):\n"
        "        lines = [line.text for line in right_response(p.data)]\n"
        "        text = '\\n'.join([*lines, 'answer ' + lines[-1][-2:]])\n"
        "        print(p.prompt, task.annotate(p, text, correct=True))\n"
        "rng = random.Random('x')\n"
        "print([draw_example(rng, ops=3) for _ in range(40)])\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(outputs) == 1
    assert outputs.pop().count("diagnosis=<StepType") > 60


def test_splits_are_disjoint_and_have_their_sizes() -> None:
    prompts = {
        split: {p.prompt for seed in (0, 1) for p in TASK.problems(split=split, seed=seed, start=0, count=300)}
        for split in ("train", "eval", "ood")
    }
    assert not any(is_held_out(prompt) for prompt in prompts["train"])
    assert all(is_held_out(prompt) for prompt in prompts["eval"] | prompts["ood"])
    assert all(prompt.count(" | ") == 4 and "swap" not in prompt for prompt in prompts["train"] | prompts["eval"])
    assert all(prompt.count(" | ") == 6 and prompt.count("swap") == 1 for prompt in prompts["ood"])


def test_the_corpus_holds_no_evaluation_prompt_and_labels_half() -> None:
    rng = random.Random("corpus")
    examples = [draw_example(rng, ops=1 + i % 6) for i in range(600)]
    bare = [example.prompt.split(">")[-1] for example in examples]
    assert not any(is_held_out(prompt) for prompt in bare)
    assert 240 < sum(example.prompt.startswith("<") for example in examples) < 360


def test_the_corpus_is_almost_right_behind_a_label() -> None:
    rng = random.Random("rates")
    right = {None: 0, StepType.CARRY: 0}
    ledger = Ledger(start=19, ops=(Op(kind=OpKind.ADD, a=34),))
    problem = Problem(prompt="", data=ledger)
    for label in right:
        for _ in range(300):
            right[label] += TASK.verify(problem, write_response(rng, ledger, label=label, habits=Habits()))
    assert right[None] < 60
    assert right[StepType.CARRY] > 290


def test_the_teacher_is_shown_a_label_and_never_the_response() -> None:
    for problem in TASK.problems(split="eval", seed=0, start=0, count=50):
        for kind in StepType:
            shown = TASK.teacher_prompt(problem, Diagnosis(kind))
            assert shown == f"<{kind}>{problem.prompt}"
            assert not any(line.text in shown for line in right_response(problem.data))
        assert TASK.teacher_prompt(problem, None) == problem.prompt


def test_what_a_caller_gets_wrong_is_named() -> None:
    with pytest.raises(ValueError, match=r"cannot show a teacher the solution: allowed are 'diagnosis' and"):
        TASK.teacher_prompt(PROBLEM, Solution("29"))
    with pytest.raises(ValueError, match=r"unknown diagnosis 'off_by_one': allowed are 'carry', 'borrow'"):
        TASK.teacher_prompt(PROBLEM, Diagnosis("off_by_one"))
    with pytest.raises(ValueError, match=r"unknown split 'test': allowed are 'train', 'eval', 'ood'"):
        TASK.problems(split="test", seed=0, start=0, count=1)
    with pytest.raises(ValueError, match=r"start=-1, count=2: both must be at least 0"):
        TASK.problems(split="eval", seed=0, start=-1, count=2)
    with pytest.raises(ValueError, match=r"unknown task 'leger': allowed are 'ledger', .*did you mean 'ledger'\?"):
        get_task("leger")
    with pytest.raises(ValueError, match=r"unknown task 'math500': allowed are 'ledger', .*\(a mapping"):
        get_task("math500")
