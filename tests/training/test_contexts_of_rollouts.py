"""What rollouts give their teachers to see, and in which format both sides are asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from megatron_bridge.annotation import Annotation, Problem
from megatron_bridge.contexts import Diagnosis, Sibling
from megatron_bridge.model.chat import has_chat_template
from megatron_bridge.prompts import encode_prompt
from megatron_bridge.rollout.align import AlignedText
from megatron_bridge.tasks import get_task
from megatron_bridge.tasks.base import PromptFormat
from megatron_bridge.training.collect import Rollout, _with_siblings, withhold
from trace_dsl.model import Sees

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if not enable_thinking %}<off>{% endif %}{% endif %}"
)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained("specs/demo/policy")


def rollout(group: int, text: str, *, correct: bool) -> Rollout:
    return Rollout(
        group=group,
        problem=Problem(prompt="34 | +47 =\n", data=None),
        prompt_ids=(1, 2, 3),
        token_ids=(1,) * 10,
        logprobs=(-1.0,) * 10,
        weight_versions=(0,) * 10,
        finish="stop",
        aligned=AlignedText(text=text, intervals=()),
        reward=float(correct),
        annotation=Annotation(diagnosis="carry"),
    )


def test_a_sibling_is_another_correct_response_of_the_group() -> None:
    group = [rollout(0, text, correct=text.isupper()) for text in ("a", "B", "c", "D")]
    alone = [rollout(1, text, correct=text.isupper()) for text in ("e", "F")]
    wrong = [rollout(2, "g", correct=False)]
    found = [r.sibling for r in _with_siblings([*group, *alone, *wrong])]
    assert found == ["B", "D", "D", "B", "F", None, None]


def test_a_context_that_does_not_fit_is_withheld(tokenizer: PreTrainedTokenizerBase) -> None:
    task, one = get_task("ledger"), rollout(0, "a", correct=False)
    length = len(tokenizer.encode(task.teacher_prompt(one.problem, Diagnosis("carry")), add_special_tokens=False)) + 10
    (fits,) = withhold([one], task, tokenizer, [Sees.DIAGNOSIS], length)
    (withheld,) = withhold([one], task, tokenizer, [Sees.DIAGNOSIS], length - 1)
    assert fits == one
    assert withheld == replace(one, withheld=frozenset({Sees.DIAGNOSIS}))
    assert not withheld.has(Sees.DIAGNOSIS)
    assert withhold([one], task, tokenizer, [], 1) == [one]


@pytest.mark.parametrize("thinking", [False, True])
def test_student_and_teacher_are_asked_in_the_same_thinking_mode(
    tokenizer: PreTrainedTokenizerBase, thinking: bool
) -> None:
    tokenizer.chat_template = TEMPLATE
    style = PromptFormat(chat=True, system="42", thinking=thinking)
    asked = encode_prompt(tokenizer, style, "34 + 47")
    whole = "<system>42<user>34 + 47<assistant>" + ("" if thinking else "<off>")
    assert asked == tuple(tokenizer.encode(whole, add_special_tokens=False))
    plain = encode_prompt(tokenizer, PromptFormat(), "34 + 47")
    assert plain == tuple(tokenizer.encode("34 + 47", add_special_tokens=False))


def test_where_a_chat_template_is_found(tmp_path: Path) -> None:
    assert not has_chat_template(Path("specs/demo/policy"))
    assert not has_chat_template(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    assert has_chat_template(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[")
    assert not has_chat_template(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("x")
    assert has_chat_template(tmp_path)


def test_a_sibling_is_no_context_of_the_ledger_task() -> None:
    with pytest.raises(ValueError, match="cannot show a teacher the sibling"):
        get_task("ledger").teacher_prompt(Problem(prompt="", data=None), Sibling("81"))
