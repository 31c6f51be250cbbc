"""What a privileged teacher is shown: its context, and never the text of a rollout or the place of a span."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_bridge.annotate.answers import read_answer
from megatron_bridge.annotate.questions import question
from megatron_bridge.annotate.settings import ERROR_TYPES, KEY_TYPES
from megatron_bridge.annotation import AnnotatedSpan, Annotation, Problem
from megatron_bridge.contexts import (
    TEMPLATES,
    ContextError,
    Diagnosis,
    Feedback,
    Sibling,
    Solution,
    render,
)
from megatron_bridge.rollout.align import AlignedText
from megatron_bridge.tasks import get_task
from megatron_bridge.tasks.data_task import DataTask
from megatron_bridge.tasks.settings import TaskSettings
from megatron_bridge.templates import TemplateError, parse_template
from megatron_bridge.training.collect import Rollout
from trace_dsl.model import Sees

CANARY = "zq_canary"  # it could be a type label, as far as its letters go


def task(**contexts: str) -> DataTask:
    settings = TaskSettings.model_validate(
        {
            "data": {"kind": "reasoning_gym", "dataset": "leg_counting"},
            "prompt": {"template": "{question}"},
            "solution": "answer",
            "verifier": {"kind": "reasoning_gym"},
            "annotator": {"kind": "self"},
            "contexts": contexts,
        }
    )
    return DataTask(settings, folder=Path(), cache=Path())


def rollout(annotation: Annotation, **changes: object) -> Rollout:
    values: dict[str, object] = {
        "group": 0,
        "problem": Problem(prompt="How many legs?", data={}, solution="Count them."),
        "prompt_ids": (1,),
        "token_ids": (2,),
        "logprobs": (-1.0,),
        "weight_versions": (0,),
        "finish": "stop",
        "aligned": AlignedText(text=f"{CANARY} {CANARY}", intervals=((0, 19),)),
        "reward": 0.0,
        "annotation": annotation,
    }
    return Rollout(**values | changes)


def test_each_context_is_shown_by_its_template() -> None:
    shown = rollout(Annotation(diagnosis="sign_error"), sibling="Two and two.", feedback="wrong")
    texts = {}
    for sees in (Sees.NOTHING, Sees.DIAGNOSIS, Sees.SOLUTION, Sees.SIBLING, Sees.FEEDBACK):
        assert shown.has(sees)
        texts[sees] = task().teacher_prompt(shown.problem, shown.context(sees))
        assert "How many legs?" in texts[sees]
        assert CANARY not in texts[sees]
    assert texts[Sees.NOTHING] == shown.problem.prompt
    for sees, text in zip(list(texts)[1:], ("sign_error", "Count them.", "Two and two.", "wrong"), strict=True):
        assert [other for other, prompt in texts.items() if text in prompt] == [sees]
    assert not any(rollout(Annotation()).has(sees) for sees in (Sees.DIAGNOSIS, Sees.SIBLING, Sees.FEEDBACK))
    assert not rollout(Annotation(diagnosis="insight"), withheld=frozenset({Sees.DIAGNOSIS})).has(Sees.DIAGNOSIS)


@given(
    kind=st.sampled_from((*ERROR_TYPES, *KEY_TYPES)),
    text=st.text(max_size=40),
    places=st.tuples(st.integers(0, 999), st.integers(0, 999)),
)
def test_the_prompt_of_a_diagnosis_is_a_function_of_problem_and_label(
    kind: str, text: str, places: tuple[int, int]
) -> None:
    """Whatever the rollout says and wherever its span is, the teacher reads the same."""
    span = AnnotatedSpan(label="error", kind=kind, start=places[0], end=places[1])
    one = rollout(
        Annotation(spans=(span,), diagnosis=kind, note=text),
        aligned=AlignedText(text=text, intervals=((0, len(text)),)),
        reason=text,
        feedback=text,
        sibling=text,
    )
    other = rollout(Annotation(diagnosis=kind))
    prompt = task().teacher_prompt(one.problem, one.context(Sees.DIAGNOSIS))
    assert prompt == task().teacher_prompt(other.problem, other.context(Sees.DIAGNOSIS))
    assert prompt == TEMPLATES["diagnosis"].format(diagnosis=kind, prompt="How many legs?")


@pytest.mark.parametrize("kind", [CANARY, f"sign_error {CANARY}", "sign_error\n", "", "7", "x" * 41, "Sign_Error"])
def test_a_hostile_annotator_cannot_put_text_into_a_diagnosis(kind: str) -> None:
    """An answer whose type is text of the rollout is no answer; past that, the task or the class refuses it."""
    asked = question(problem="p", response=f"{CANARY} one. two.", correct=False, types=ERROR_TYPES)
    answer = json.dumps({"error_spans": [{"segment_ids": [1], "error_type": kind}]})
    assert read_answer(answer, asked).diagnosis is None
    with pytest.raises(ContextError, match=r"no type label|unknown diagnosis"):
        task().teacher_prompt(Problem(prompt="p", data={}), rollout(Annotation(diagnosis=kind)).context(Sees.DIAGNOSIS))


@pytest.mark.parametrize("kind", ["two words", "sign_error\n", "", "x" * 41, "Sign_Error"])
def test_a_diagnosis_is_one_word(kind: str) -> None:
    with pytest.raises(ContextError, match="no type label"):
        Diagnosis(kind)


def test_the_ledger_task_refuses_a_diagnosis_that_is_no_step_type() -> None:
    ledger = get_task("ledger")
    (problem,) = ledger.problems(split="train", seed=0, start=0, count=1)
    with pytest.raises(ContextError, match="unknown diagnosis 'zq_canary'"):
        ledger.teacher_prompt(problem, Diagnosis(CANARY))


@pytest.mark.parametrize("name", ["response", "span", "place", "solution", "sibling", "feedback", "anything"])
def test_a_template_that_shows_more_is_refused_when_it_is_used(name: str) -> None:
    templates = {"diagnosis": parse_template(f"{{prompt}} {{diagnosis}} {{{name}}}")}
    with pytest.raises(ContextError, match=rf"the template for diagnosis shows {{{name}}}: it may show"):
        render(templates, "p", Diagnosis("insight"))


def test_what_is_filled_in_is_never_read_as_a_template() -> None:
    shown = task(solution="{{a}} {prompt} {solution}")
    problem = Problem(prompt="{diagnosis} {", data={})
    assert shown.teacher_prompt(problem, Solution("{prompt}")) == "{a} {diagnosis} { {prompt}"
    assert "{solution}" in task().teacher_prompt(problem, Sibling("{solution}"))
    assert "{prompt}" in task().teacher_prompt(problem, Feedback("{prompt}"))


@pytest.mark.parametrize("text", ["{", "}", "{0}", "{}", "{a.b}", "{a[0]}", "{a!r}", "{a:>3}", "\\frac{1}{2}"])
def test_templates_that_do_not_parse(text: str) -> None:
    with pytest.raises(TemplateError, match=r"write \{\{ and \}\} for braces that are meant"):
        parse_template(text)
