"""Train the demo's tiny policy from nothing and write it as a Hugging Face directory.

The policy is a Qwen3 model of about 0.35 million parameters that works Ledger problems
(megatron_bridge/tasks/ledger.py) and is wrong about half of the time. It is fine-tuned on responses only,
on examples that get longer, with Muon on the matrices and AdamW on the rest. It takes about ten minutes on
one idle CPU thread and needs no network:

    python tools/make_demo_policy.py --out specs/demo/policy

A run is reproducible: the same seed and the same number of steps on the same versions give the same
weights. The directory is written aside and renamed, so that a reader never meets half of it.
"""

from __future__ import annotations

import argparse
import random
import shutil
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from measure_demo_policy import measure
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from megatron_bridge.tasks import get_task
from megatron_bridge.tasks.ledger_corpus import Habits, draw_example
from megatron_bridge.tasks.ledger_steps import END_TOKEN, LABEL_TOKENS, WORDS, answer, right_response

PAD_TOKEN, UNKNOWN_TOKEN = "<pad>", "<unk>"
VOCABULARY_MULTIPLE = 64
MUON_LR, ADAMW_LR = 0.02, 3e-3
TOKENS_PER_BATCH = 7000
IGNORED = -100


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Words of the task, then every printable ASCII character. Words hold their spaces: decoding joins."""
    special = [PAD_TOKEN, END_TOKEN, UNKNOWN_TOKEN]
    pieces = [*special, *LABEL_TOKENS, *WORDS, "\n", *map(chr, range(32, 127))]
    missing = -len(pieces) % VOCABULARY_MULTIPLE
    pieces += [f"<reserved {i}>" for i in range(missing)]
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token=UNKNOWN_TOKEN))
    words = "|".join(_escaped(word) for word in sorted(WORDS, key=len, reverse=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(rf"{words}|[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in special])
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in LABEL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        eos_token=END_TOKEN,
        unk_token=UNKNOWN_TOKEN,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=256,
    )


def _escaped(word: str) -> str:
    return "".join(rf"\{character}" if character in "|*+-()?." else character for character in word)


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """The Qwen3 architecture, small: every size that tensor parallelism cuts is divisible by 2."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config)
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            scale = 0.5 if "o_proj" in name or "down_proj" in name else 1.0
            torch.nn.init.normal_(weight, 0.0, scale * weight.shape[1] ** -0.5)
    return model


def draw_batch(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, progress: float, habits: Habits
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch at `progress` (0..1) of the curriculum: inputs and targets, both [examples, positions].

    Targets hold the next token at response positions (the end token included) and IGNORED elsewhere.
    """
    if progress < 0.25:
        ops = rng.choice([1, 2])
    elif progress < 0.5:
        ops = rng.choice([1, 2, 3, 4])
    else:
        ops = rng.choices([1, 2, 3, 4, 5, 6], [1, 1, 1, 4, 1, 3])[0]
    count = TOKENS_PER_BATCH // (20 + 16 * ops)
    examples = [draw_example(rng, ops=ops, habits=habits) for _ in range(count)]
    prompts = tokenizer([example.prompt for example in examples])["input_ids"]
    responses = tokenizer([example.response + END_TOKEN for example in examples])["input_ids"]
    width = max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True)) - 1
    inputs = torch.full((count, width), tokenizer.pad_token_id)
    targets = torch.full((count, width), IGNORED)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        ids = torch.tensor(prompt + response)
        inputs[row, : len(ids) - 1] = ids[:-1]
        targets[row, len(prompt) - 1 : len(ids) - 1] = ids[len(prompt) :]
    return inputs, targets


def train(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, *, steps: int, seed: int, habits: Habits
) -> None:
    """Response-only cross-entropy; learning rates rise for 30 steps and fall over the second half."""
    rng = random.Random(f"ledger/sft/{seed}")
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=MUON_LR, weight_decay=0.02),
        torch.optim.AdamW(others, lr=ADAMW_LR, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda k: min(1.0, (k + 1) / 30, 2 * (steps - k) / steps))
        for o in optimizers
    ]
    began, losses = time.time(), []
    model.train()
    for step in range(steps):
        inputs, targets = draw_batch(rng, tokenizer, step / steps, habits)
        logits = model(input_ids=inputs, use_cache=False).logits
        loss = F.cross_entropy(logits[targets != IGNORED], targets[targets != IGNORED])
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            recent = sum(losses[-100:]) / 100
            print(
                f"step {step + 1}/{steps}  loss {recent:.4f} nats a token  {time.time() - began:.0f} s",
                flush=True,
            )
    model.eval()


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [arithmetic, demo, distillation, reinforcement-learning]
---

# Ledger demo policy

A Qwen3 model of {parameters:,} parameters that works chained two-digit arithmetic modulo 100, one step per
line. It is often wrong, in five known ways, and it is right more often when a label token in front of the
prompt says which kind of step to watch. It exists so that post-training can be tried on a laptop in minutes.

    {example}

Intended use: demos, tests and teaching of token-routed distillation and reinforcement learning. It knows
nothing but Ledger problems; its figures say nothing about language models of useful size. Licence:
Apache-2.0.

## Recipe

- Data: examples drawn by `megatron_bridge/tasks/ledger_corpus.py`, none of them downloaded. A decision goes
  wrong with probability {hard} in a hard context, {easy} elsewhere and {labelled} where its type is the
  label shown; half of the examples show one. With one, a step of an operation that never has that type is
  written as its result alone with probability {terse}. No prompt of the splits `eval` and `ood` is in the corpus. It
  contains digit swaps and up to 6 operations, so `ood` means out of the distribution of `train`, not of the
  corpus.
- Loss: cross-entropy on response tokens only; 1-2 operations for the first quarter of the steps, then 1-4,
  then 1-6.
- Optimiser: Muon {muon} on matrices, AdamW {adamw} on the rest, {steps} steps of about {tokens} tokens,
  seed {seed}.
- Shape: hidden 96, 3 layers, 4 heads and 2 key-value heads of 32, feed-forward 256, vocabulary 128, tied
  embeddings.
- Tokenizer: digits and printable ASCII characters one by one, the words of the task with their spaces as
  one token, label tokens `<carry>` and so on, `<end>` to stop. Nothing is added to a prompt. Other
  characters become `<unk>`.

Training took {minutes:.0f} minutes on one CPU thread (torch {torch}). Command:

    python tools/make_demo_policy.py --steps {steps} --seed {seed} --count {count} \\
        --hard {hard} --terse {terse} --out {out}

## Measured

Temperature 1, no truncation of the distribution, {count} problems each; a share p of n problems has a
standard error of sqrt(p (1 - p) / n), at most {error:.3f}. The label of a 4- or 6-operation problem is one
type that occurs in it. `python tools/measure_demo_policy.py` prints these tables again without training.

{tables}

The divergence is KL(student || teacher) over the whole vocabulary on wrong responses and KL(teacher ||
student) on correct ones; the teacher is the same policy behind the label of the annotated type. The gain is
the teacher's log-probability of the right token less the student's: on wrong responses at the first wrong
token (inside) and at all tokens before it (outside), on correct ones at every token.

## Limits

Steps are easy to check and mistakes are of five types by construction. A label helps only its own type, so
a response with mistakes of two types stays wrong. On correct responses the labelled policy mostly agrees with
the sampled tokens, so key spans have less to teach than error spans.
"""


def model_card(
    model: Qwen3ForCausalLM, tables: str, habits: Habits, *, minutes: float, asked: argparse.Namespace
) -> str:
    """The README of the policy's directory."""
    example = get_task("ledger").problems(split="eval", seed=0, start=0, count=1)[0]
    lines = [*(line.text for line in right_response(example.data)), f"answer {answer(example.data):02d}"]
    return CARD.format(
        parameters=sum(weight.numel() for weight in model.parameters()),
        example=(example.prompt + "\n".join(lines)).replace("\n", "\n    "),
        hard=habits.hard,
        easy=habits.easy,
        labelled=habits.labelled,
        terse=habits.terse,
        muon=MUON_LR,
        adamw=ADAMW_LR,
        steps=asked.steps,
        tokens=TOKENS_PER_BATCH,
        seed=asked.seed,
        out=asked.out.as_posix(),
        minutes=minutes,
        torch=torch.__version__,
        count=asked.count,
        error=0.5 * asked.count**-0.5,
        tables=tables,
    )


def write_policy(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, card: str, out: Path) -> None:
    """Write the Hugging Face directory aside, then put it in place of `out`."""
    aside = out.with_name(out.name + ".new")
    shutil.rmtree(aside, ignore_errors=True)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=128,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    config = aside / "tokenizer_config.json"  # the class name that transformers 4 and 5 both know
    config.write_text(config.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    (aside / "README.md").write_text(card)
    for path in aside.iterdir():
        path.chmod(0o644)
    old = out.with_name(out.name + ".old")
    if out.exists():
        out.rename(old)
    aside.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("specs/demo/policy"),
        help="directory to write (default: %(default)s)",
    )
    parser.add_argument(
        "--steps", type=int, default=1600, help="training steps, about 0.35 s each (default: %(default)s)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the weights, the corpus and the sampling (default: %(default)s)",
    )
    parser.add_argument(
        "--count",
        type=int,
        default=1024,
        help="problems behind each figure of the card (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="CPU threads; another number changes the last digits (default: %(default)s)",
    )
    parser.add_argument(
        "--hard",
        type=float,
        default=Habits().hard,
        help="how likely a decision goes wrong in a hard context of the corpus (default: %(default)s)",
    )
    parser.add_argument(
        "--terse",
        type=float,
        default=Habits().terse,
        help="how likely a labelled example writes a step of another operation as its result alone: a style that "
        "leaks from the label (default: %(default)s)",
    )
    arguments = parser.parse_args()
    for name, value in (("hard", arguments.hard), ("terse", arguments.terse)):
        if not 0 <= value <= 1:
            parser.error(f"--{name} {value}: a probability is from 0 to 1")
    if arguments.steps < 1 or arguments.count < 1 or arguments.threads < 1:
        parser.error("--steps, --count and --threads must be at least 1")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    parameters = sum(weight.numel() for weight in model.parameters())
    print(f"{parameters:,} parameters, vocabulary {len(tokenizer)}, {arguments.steps} steps")
    began = time.time()
    habits = Habits(hard=arguments.hard, terse=arguments.terse)
    train(model, tokenizer, steps=arguments.steps, seed=arguments.seed, habits=habits)
    minutes = (time.time() - began) / 60
    write_policy(model, tokenizer, "The figures of this policy are being measured.\n", arguments.out)
    tables = measure(model, tokenizer, count=arguments.count, seed=arguments.seed)
    card = model_card(model, tables, habits, minutes=minutes, asked=arguments)
    write_policy(model, tokenizer, card, arguments.out)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
