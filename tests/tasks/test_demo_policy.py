"""The shipped demo policy: it loads, it is as good as its card says, and a label tells it something."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, Qwen3ForCausalLM

from megatron_bridge.annotation import AnnotatedSpan
from megatron_bridge.contexts import Diagnosis
from megatron_bridge.tasks import get_task
from megatron_bridge.tasks.ledger_corpus import Habits, draw_example, write_response
from megatron_bridge.tasks.ledger_steps import END_TOKEN, LABEL_TOKENS, WORDS, answer, right_response
from tools.measure_demo_policy import accuracy, marked_tokens, token_log_probabilities

POLICY = Path(__file__).resolve().parents[2] / "specs" / "demo" / "policy"
TASK = get_task("ledger")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(POLICY)


@pytest.fixture(scope="module")
def model() -> Iterator[Qwen3ForCausalLM]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield AutoModelForCausalLM.from_pretrained(POLICY).eval()
    torch.set_num_threads(threads)


def card_accuracy(split: str) -> tuple[float, float]:
    row = re.search(rf"\| {split} \| \d \| ([\d.]+) \| ([\d.]+) \|", (POLICY / "README.md").read_text())
    assert row, f"the model card has no row for {split}"
    return float(row[1]), float(row[2])


def test_it_is_a_small_plain_qwen3(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    config = model.config
    assert isinstance(model, Qwen3ForCausalLM)
    assert sum(path.stat().st_size for path in POLICY.iterdir()) < 8 * 2**20
    assert config.vocab_size == len(tokenizer) == 128
    assert config.tie_word_embeddings
    for size in (config.num_attention_heads, config.num_key_value_heads, config.intermediate_size):
        assert size % 2 == 0
    assert config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    assert (model.generation_config.temperature, model.generation_config.top_k) == (1.0, 0)


def test_words_labels_and_digits_are_one_token_each(tokenizer: PreTrainedTokenizerBase) -> None:
    for piece in (*WORDS, *LABEL_TOKENS, *"0123456789", "\n", END_TOKEN):
        assert len(tokenizer.encode(piece)) == 1, piece
    assert tokenizer.encode("47") == tokenizer.encode("4") + tokenizer.encode("7")


@given(seed=st.integers(0, 10**9), ops=st.integers(1, 6))
def test_prompts_and_responses_survive_the_tokenizer(tokenizer: PreTrainedTokenizerBase, seed: int, ops: int) -> None:
    example = draw_example(random.Random(seed), ops=ops)
    prompt, response = tokenizer.encode(example.prompt), tokenizer.encode(example.response)
    assert tokenizer.unk_token_id not in prompt + response
    assert tokenizer.decode(prompt) == example.prompt
    assert "".join(tokenizer.decode([token]) for token in response) == example.response
    assert tokenizer.encode(example.prompt + example.response) == prompt + response


@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.just("\n")))
def test_any_printable_ascii_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert "".join(tokenizer.decode([token]) for token in tokens) == text


def test_other_characters_become_one_unknown_token(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.encode("3é4").count(tokenizer.unk_token_id) == 1


def test_responses_are_short(tokenizer: PreTrainedTokenizerBase) -> None:
    rng = random.Random("length")
    problems = TASK.problems(split="train", seed=0, start=0, count=200)
    texts = [write_response(rng, p.data, label=None, habits=Habits()) for p in problems]
    assert sum(len(tokenizer.encode(text)) + 1 for text in texts) / len(texts) < 50


def test_marked_tokens_cover_the_span(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "34 + 47 = 71\nanswer 71"
    span = AnnotatedSpan(label="error", kind="carry", start=text.index("= 71"), end=text.index("\n"))
    tokens = tokenizer.encode(text)
    marks = marked_tokens(tokenizer, tokens, [span])
    covered = [token for token, mark in zip(tokens, marks.tolist(), strict=True) if mark]
    assert tokenizer.decode(covered) == " = 71"


def test_accuracy_is_what_the_card_says(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    """256 problems: within 0.1 of the card, which is three standard errors of a share near one half."""
    plain, labelled = card_accuracy("eval")
    assert 0.40 <= plain <= 0.55
    assert labelled - plain >= 0.08
    torch.manual_seed(0)
    measured, length = accuracy(model, tokenizer, TASK.problems(split="eval", seed=5, start=0, count=256), [None] * 256)
    assert measured == pytest.approx(plain, abs=0.1)
    assert length < 50


def test_a_label_makes_right_lines_likelier(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    """A marked line of a right response gains over half a nat from the label, another line hardly any."""
    marked, rest = [], []
    for problem in TASK.problems(split="eval", seed=6, start=0, count=64):
        lines = [line.text for line in right_response(problem.data)]
        text = "\n".join([*lines, f"answer {answer(problem.data):02d}"])
        annotation = TASK.annotate(problem, text, correct=True)
        if not annotation.spans:
            continue
        tokens = tokenizer.encode(text)
        shown = TASK.teacher_prompt(problem, Diagnosis(annotation.diagnosis))
        plain, labelled = (
            logp.gather(1, torch.tensor(tokens)[:, None])[:, 0]
            for logp in token_log_probabilities(model, tokenizer, [problem.prompt, shown], [tokens, tokens])
        )
        marks = marked_tokens(tokenizer, tokens, annotation.spans)
        marked.append(float((labelled - plain)[marks].sum()) / len(annotation.spans))
        rest.append(float((labelled - plain)[~marks].sum()) / len(lines))
    assert len(marked) > 40
    assert sum(marked) / len(marked) > 0.5
    assert abs(sum(rest) / len(rest)) < 0.25
