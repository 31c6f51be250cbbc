"""Every parameter's gradient, under every layout and cut, equals the float64 gradient of a single process.

Guards against the failures in which a loss depends on micro-batching (by 8x or 32x elsewhere), denominators are counted
per rank, or a loss looks right while gradients are multiplied by tp.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from megatron.core import parallel_state
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from megatron_bridge.annotation import Annotation
from megatron_bridge.contexts import Diagnosis
from megatron_bridge.device import megatron_runtime
from megatron_bridge.model.gpt import build_model
from megatron_bridge.model.hf import load_hf, save_hf
from megatron_bridge.model.shape import Layout, read_shape
from megatron_bridge.parallel import start_parallel
from megatron_bridge.prepare import prepare_run
from megatron_bridge.rollout.align import AlignedText
from megatron_bridge.rollout.embedded import EmbeddedEngine
from megatron_bridge.rollout.engine import SamplingParams
from megatron_bridge.tasks import get_task
from megatron_bridge.training.collect import Rollout, begin_rollouts, finish_rollouts, judge_rollouts, to_batch
from megatron_bridge.training.job import stop_tokens
from megatron_bridge.training.microbatch import Share, cut
from megatron_bridge.training.optimize import accumulate_gradients, make_trainer
from megatron_bridge.training.route_metrics import Metrics, route_metrics, with_exposure
from megatron_bridge.training.signals import measure
from megatron_bridge.training.step_sums import losses_of
from megatron_bridge.training.teacher import TeacherModel
from tests.bridge.tiny import make_model
from tests.distributed import run_distributed
from tests.training.objective import Part, reference_gradients, response_logp
from trace_dsl.lowering import FusedRouting, lower
from trace_dsl.schedules import Progress
from trace_dsl.terms import Rank, Signal

RUN = Path("specs/demo/run.yaml")
PROMPTS, GROUP = 4, 4
METRICS = ("loss", "tokens", "weight", "denominator", "clip_fraction", "grad_share", "exposure")
STEP = 20  # inside the anneal: both the KL and the returned policy gradient have weight
pytestmark = pytest.mark.distributed


def rollouts_of(policy: Path) -> list[Rollout]:
    """A fixed batch from the demo policy, one response emptied, log-probs moved off policy so that clips are active."""
    task, tokenizer = get_task("ledger"), AutoTokenizer.from_pretrained(policy)
    start_parallel(Layout(), seed=0)
    with megatron_runtime():
        shape = read_shape(policy)
        model = build_model(shape, Layout())
        load_hf(model, policy)
        engine = EmbeddedEngine(model, vocab_size=shape.vocab_size, max_context=shape.max_position)
        asked = begin_rollouts(
            engine,
            tokenizer,
            task.problems(split="train", seed=3, start=0, count=PROMPTS),
            range(PROMPTS),
            n=GROUP,
            prompt_format=task.prompt_format,
            params=SamplingParams(
                temperature=1.0, max_new_tokens=96, stop_token_ids=stop_tokens(policy, tokenizer), seed=3
            ),
        )
        rollouts = judge_rollouts(task, finish_rollouts(asked, tokenizer)[0], task.annotator(None))
    rollouts[5] = replace(  # a response without any token
        rollouts[5],
        token_ids=(),
        logprobs=(),
        weight_versions=(),
        aligned=AlignedText(text="", intervals=()),
        reward=0.0,
        annotation=Annotation(),
    )
    generator = torch.Generator().manual_seed(0)
    return [
        replace(
            r,
            logprobs=tuple(
                (torch.tensor(r.logprobs) + 0.3 * torch.randn(len(r.logprobs), generator=generator)).tolist()
            ),
        )
        for r in rollouts
    ]


def gradients(
    rollouts: list[Rollout], tp: int, dp: int, micro_batches: tuple[int, ...], folder: str, teaching: str | None = None
) -> list[tuple[float, Metrics]]:
    """One accumulation for each micro-batch size; gradients are written as Hugging Face directories folder/SIZE.

    teaching: the directory of another model that teaches. Returns the global loss and the metrics of the losses of
    each.
    """
    loaded, plan, _ = prepare_run(RUN)
    layout = Layout(tp=tp, dp=dp)
    start_parallel(layout, seed=0)
    with megatron_runtime():

        def fresh(directory=loaded.policy_path):
            model = build_model(read_shape(directory), layout)
            load_hf(model, directory)
            return model

        tokenizer = AutoTokenizer.from_pretrained(loaded.policy_path)
        other = fresh() if teaching is None else fresh(Path(teaching))
        teacher = TeacherModel(plan.teachers[0].teacher, other, get_task("ledger"), tokenizer)
        lowered = lower(plan, to_batch(rollouts), STEP)
        losses = []
        for micro_batch in micro_batches:
            trainer = make_trainer(fresh(), loaded.file.optim, 60)
            part = Share(dp_rank=parallel_state.get_data_parallel_rank(), dp=dp)
            sums = accumulate_gradients(
                trainer.model,
                cut(rollouts, lowered.routing, micro_batch=micro_batch, part=part, device=torch.device("cpu")),
                [teacher],
                part,
                temperature=1.0,
                vocab_size=loaded.shape.vocab_size,
            ).sums
            with torch.no_grad():
                for parameter in trainer.model.parameters():
                    parameter.copy_(parameter.main_grad)
            save_hf(trainer.model, loaded.shape, loaded.policy_path, Path(folder) / str(micro_batch))
            exposure = with_exposure({}, plan, lowered)
            metrics = route_metrics(plan, lowered, losses_of(sums), Progress(step=STEP, total_steps=60), exposure)
            losses.append((float(sums["loss_C"].sum()), metrics))
        return losses


def signals(rollouts: list[Rollout], tp: int, dp: int) -> dict[str, torch.Tensor]:
    """The measured signals of `rollouts` by name, as the loop measures them."""
    loaded, plan, _ = prepare_run(RUN)
    layout = Layout(tp=tp, dp=dp)
    start_parallel(layout, seed=0)
    with megatron_runtime():
        policy, copy = (build_model(loaded.shape, layout) for _ in range(2))
        for model in (policy, copy):
            load_hf(model, loaded.policy_path)
        tokenizer = AutoTokenizer.from_pretrained(loaded.policy_path)
        teacher = TeacherModel(plan.teachers[0].teacher, copy, get_task("ledger"), tokenizer)
        tokens = sum(len(r.token_ids) for r in rollouts)
        part = Share(dp_rank=parallel_state.get_data_parallel_rank(), dp=dp)
        batches = cut(rollouts, FusedRouting.empty(tokens), micro_batch=4, part=part, device=torch.device("cpu"))
        wanted = frozenset(
            Signal(name=name, rank=Rank.TOKEN, teacher=who)
            for name, who in (
                ("logp", None),
                ("entropy", None),
                ("teacher_logp", "teacher"),
                ("teacher_entropy", "teacher"),
            )
        )
        found = measure(
            wanted, policy, [teacher], batches, part, tokens=tokens, temperature=1.0, vocab_size=loaded.shape.vocab_size
        )
        return {signal.name: value_T for signal, value_T in found}


@pytest.fixture(scope="module")
def batch() -> list[Rollout]:
    return run_distributed(rollouts_of, 1, Path("specs/demo/policy"))[0]


@pytest.fixture(scope="module")
def reference(batch: list[Rollout]) -> tuple[float, dict[str, torch.Tensor], dict[str, Part]]:
    policy = Path("specs/demo/policy")
    return reference_gradients(policy, batch, get_task("ledger"), AutoTokenizer.from_pretrained(policy), STEP)


def test_batch_exercises_every_channel(batch: list[Rollout]) -> None:
    assert {r.correct for r in batch} == {True, False}
    assert any(r.annotation.spans for r in batch if not r.correct)
    assert any(not r.token_ids for r in batch)


@pytest.mark.parametrize("tp, dp, micro_batches", [(1, 1, (16, 8, 1)), (2, 1, (4,)), (1, 2, (8, 1))], ids=str)
def test_gradients_equal_float64_reference(batch, reference, tmp_path, tp, dp, micro_batches) -> None:
    by_rank = run_distributed(gradients, tp * dp, batch, tp, dp, micro_batches, str(tmp_path))
    check(by_rank, reference, batch, tmp_path, micro_batches, f"tp {tp} dp {dp}")


@pytest.mark.parametrize("tp", [1, 2])
def test_another_model_may_teach(batch, tmp_path, tp) -> None:
    """Of another size: its hidden states are narrower, its layers fewer, its output weight its own."""
    policy = Path("specs/demo/policy")
    other = make_model(tmp_path / "other", tied=False, vocab=128, layers=1, max_position=256)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    expected = reference_gradients(policy, batch, get_task("ledger"), tokenizer, STEP, Path(other))
    by_rank = run_distributed(gradients, tp, batch, tp, 1, (8,), str(tmp_path), other)
    check(by_rank, expected, batch, tmp_path, (8,), f"another model, tp {tp}")


def check(by_rank, reference, batch, folder: Path, micro_batches: tuple[int, ...], what: str) -> None:
    """The losses of all ranks and the gradients in `folder` are those of the reference."""
    expected_loss, expected, parts = reference
    scale = max(float(g.abs().max()) for g in expected.values())
    for losses in by_rank:
        for loss, metrics in losses:
            assert abs(loss - expected_loss) < 1e-6 * max(1, abs(expected_loss))
            _assert_metrics(metrics, parts, batch)
    for micro_batch in micro_batches:
        got = load_file(folder / str(micro_batch) / "model.safetensors")
        errors = {
            name: float((got[name].double() - gradient).abs().max()) / scale
            for name, gradient in expected.items()
            if name in got  # a tied output layer is not written
        }
        worst = max(errors, key=errors.__getitem__)
        print(f"{what} micro-batch {micro_batch}: worst {errors[worst]:.2e} at {worst}")
        assert errors[worst] < 1e-5, f"micro-batch {micro_batch}, {worst}: {errors[worst]:.2e} of the largest gradient"


def _assert_metrics(metrics: Metrics, parts: dict[str, Part], batch: list[Rollout]) -> None:
    """The metrics of every loss against the float64 sums, with the weights of step 20."""
    everything = sum(part.gradient for part in parts.values())
    weight = {"error/rkl": 1 / 3, "error/grpo": 1 / 3, "key/grpo": 1 / 3, "rest/grpo": 1.0}
    for name, part in parts.items():
        assert part.tokens > 0
        found = {what: metrics[f"train/route/{name}/{what}"] for what in METRICS}
        assert found["loss"] == pytest.approx(part.loss, rel=1e-4, abs=1e-7)
        assert found["tokens"] == part.tokens
        assert found["weight"] == pytest.approx(weight[name])
        assert found["exposure"] == pytest.approx(weight[name] * part.tokens)
        assert found["grad_share"] == pytest.approx(part.gradient / everything, rel=1e-4)
        clipped = None if name == "error/rkl" else part.clipped / part.tokens
        assert found["clip_fraction"] == clipped
        # every token of a response has its length x 16 responses
        lengths = [len(r.token_ids) for r in batch]
        assert min(n for n in lengths if n) <= found["denominator"] / len(batch) <= max(lengths)


@pytest.mark.parametrize("tp, dp", [(2, 1), (1, 2)], ids=str)
def test_measured_signals_equal_float64_reference(batch, tp, dp) -> None:
    """Also: the teacher's are NaN exactly on the rollouts without a diagnosis."""
    policy = Path("specs/demo/policy")
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float64)
    tokenizer, task = AutoTokenizer.from_pretrained(policy), get_task("ledger")
    expected: dict[str, list[float]] = {name: [] for name in ("logp", "entropy", "teacher_logp", "teacher_entropy")}
    for rollout in batch:
        diagnosis = rollout.annotation.diagnosis
        prompt = task.teacher_prompt(rollout.problem, Diagnosis(diagnosis) if diagnosis is not None else None)
        private = tokenizer.encode(prompt, add_special_tokens=False)
        for prefix, prompt_ids in (("", rollout.prompt_ids), ("teacher_", private)):
            if not rollout.token_ids:
                continue
            with torch.no_grad():
                logp_tv = response_logp(model, prompt_ids, rollout.token_ids)
            value_t = logp_tv.gather(1, torch.tensor(rollout.token_ids)[:, None])[:, 0]
            entropy_t = -(logp_tv.exp() * logp_tv).sum(1)
            blind = prefix == "teacher_" and diagnosis is None
            for name, t in ((f"{prefix}logp", value_t), (f"{prefix}entropy", entropy_t)):
                expected[name] += [float("nan")] * len(t) if blind else t.tolist()
    for found in run_distributed(signals, tp * dp, batch, tp, dp):
        for name, values in expected.items():
            torch.testing.assert_close(
                found[name].double(), torch.tensor(values, dtype=torch.float64), rtol=1e-5, atol=1e-5, equal_nan=True
            )
