"""Run files: every mistake is one clear line, found before anything starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_bridge import other_names
from megatron_bridge.prepare import prepare_run
from megatron_bridge.run_file import RunFile, changed_settings, dump_run, load_run
from trace_dsl.errors import RunFileError, SpecError

RUN = Path("specs/demo/run.yaml")


def complaint(*overrides: str) -> str:
    with pytest.raises(RunFileError) as raised:
        load_run(RUN, overrides)
    return str(raised.value)


@pytest.mark.parametrize(
    "override, expected",
    [
        ("optim.lrr=1", "optim.lrr: unknown setting; did you mean 'lr'?"),
        ("profile={steps: [2, 99]}", "profile.steps: [2, 99] ends after the run, which has 60 steps; end it at 60"),
        ("profile={steps: [3, 3]}", "profile.steps: [3, 3] is not allowed: it holds no step"),
        ("profile={steps: [-1, 3]}", "profile.steps.0: -1 is not allowed"),
        ("profile={steps: [3]}", "profile.steps: [3] is not allowed: list should have at least 2 items"),
        ("profile.tool=nsys", "profile.steps: missing, and it has no default"),
        ("logging.wandb.key=abc", "logging.wandb.key: unknown setting; allowed here: entity, mode, project"),
        ("logging.peak_tflops=0", "logging.peak_tflops: 0 is not allowed: input should be greater than 0"),
        ("rollout.launch={arguments: [1]}", "rollout.launch.arguments.0: 1 is not allowed"),
        ("stepz=1", "stepz: unknown setting; did you mean 'steps'?"),
        ("rollout.frobnicate=1", "unknown setting; allowed here: api_key_env, bucket_mb, concurrency, engine"),
        ("steps=many", "steps: 'many' is not allowed"),
        ("steps=1.5", "steps: 1.5 is not allowed"),
        ("steps=true", "steps: True is not allowed"),
        ("optim.lr=0", "optim.lr: 0 is not allowed"),
        ("rollout.temperature=-1", "rollout.temperature: -1 is not allowed"),
        ("optim.decay=cosin", "optim.decay: 'cosin' is not allowed"),
        ("name=../x", "name: '../x' is not allowed"),
        ("spec=nope.trace", "spec: no file 'specs/demo/nope.trace'"),
        ("policy=nowhere", "policy: no folder 'specs/demo/nowhere': a policy is a Hugging Face model"),
        ("task=ledgr", "did you mean 'ledger'?"),
        ("layout.tp=3", "4 attention heads (num_attention_heads) cannot be split over tp 3: choose tp from 1, 2, 4"),
        ("layout.tp=4", "2 key/value heads (num_key_value_heads) cannot be split over tp 4"),
        ("layout.pp=2", "3 layers (num_hidden_layers) cannot be split over pp 2: choose pp from 1, 3"),
        ("layout.cp=5", "32 prompts cannot be shared out over 5 ranks (cp 5 x dp 1); make it a multiple of 5"),
        ("evaluation.split=test", "is no split of the task 'ledger': choose from train, eval, ood"),
        ("rollout=5", "rollout: 5 is not allowed: it is a group of settings"),
        ("micro_batch=100", "pick a divisor of 256"),
        ("minibatches=3", "rollout.prompts: 32 prompts cannot be split into 3 minibatches"),
        (
            "rollout.max_response_tokens=100000",
            "100000 tokens fill the policy's context of 256",
        ),
        ("rollout.max_response_tokens=256", "set it to at most 255, less the longest prompt"),
        ("precision=fp16", "precision: 'fp16' is not allowed"),
        (
            "transformer_impl=transformer_engine",
            "transformer_impl: transformer-engine is not installed, and it runs on",
        ),
        ("seed", "an override is written key=value"),
        ("name.x=1", "'name' is a value, not a group of settings"),
    ],
)
def test_mistake_is_one_clear_line(override: str, expected: str) -> None:
    assert expected in complaint(override)


def test_a_configuration_alone_is_enough_for_all_but_training(tmp_path: Path) -> None:
    config = json.loads(Path("specs/demo/policy/config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"_name_or_path": "Org/Model"}))
    wanted = [f"policy={tmp_path}", "rollout.engine=sglang", "rollout.launch.python=/no/python"]
    assert load_run(RUN, wanted, to_train=False).shape == load_run(RUN).shape
    lines = complaint(*wanted).splitlines()
    assert len(lines) == 2
    assert f"(hf download Org/Model --local-dir {tmp_path}), or name a directory that has them, policy=DIR" in lines[0]
    assert "rollout.launch.python: no file '/no/python'" in lines[1]
    (tmp_path / "tokenizer.json").write_text("{}")
    assert complaint(*wanted[:1]).endswith("holds no *.safetensors weights")


def test_sequence_parallelism_needs_tensor_parallel_ranks() -> None:
    assert "sp splits sequences over the tensor parallel ranks: set tp to 2 or more" in complaint(
        "layout.tp=1", "layout.sp=true"
    )


def test_interleaved_pipelines_need_stages_layers_and_micro_batches(tmp_path: Path) -> None:
    config = json.loads(Path("specs/demo/policy/config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))

    def found(*settings: str) -> str:
        try:
            load_run(RUN, [f"policy={tmp_path}", "layout.tp=1", "layout.vpp=2", *settings], to_train=False)
        except RunFileError as error:
            return str(error).removeprefix(f"{RUN}: ")
        return ""

    assert found().endswith("vpp 2 interleaves pipeline stages: set pp to 2 or more, or vpp to 1")
    assert found("layout.pp=2") == ""
    assert found("layout.pp=4").startswith("layout: the 1 layers of a pipeline stage (4 layers over pp 4) cannot be")
    few = "layout.vpp: an interleaved pipeline of pp 2 stages needs 2 micro-batches or more, and a rank has at most 1 "
    assert (
        found("layout.pp=2", "micro_batch=256") == f"{few}in a step; set micro_batch to at most 128, or layout.vpp to 1"
    )
    # packs are made as many as are needed, as long as there are rollouts for them
    assert found("layout.pp=2", "rollout.prompts=1", "rollout.group_size=2", "pack_tokens=100000") == ""
    one = ("rollout.prompts=4", "rollout.group_size=1", "minibatches=4", "checkpoint.every=0", "pack_tokens=9")
    more = "raise rollout.prompts or rollout.group_size, or set layout.vpp to 1"
    assert found("layout.pp=2", *one) == f"{few}in a step; {more}"


def test_a_ratio_over_responses_needs_them_whole(tmp_path: Path) -> None:
    spec = tmp_path / "gspo.trace"
    spec.write_text("rest: grpo(level=sequence)\n")
    prepare_run(RUN, (f"spec={spec}", "layout.tp=1"))
    with pytest.raises(
        RunFileError, match=r"layout\.cp: 2 context parallel ranks .* line 1 of .*; set layout\.cp to 1"
    ):
        prepare_run(RUN, (f"spec={spec}", "layout.tp=1", "layout.cp=2"))


def test_all_mistakes_are_reported_together() -> None:
    text = complaint("spec=nope.trace", "task=ledgr", "policy=nowhere")
    assert all(part in text for part in ("spec: no file", "unknown task", "policy: no folder"))
    assert len(complaint("optim.lrr=1", "steps=many").splitlines()) == 2
    text = complaint("optim.lrr=1", "spec=nope.trace", "layout.tp=3", "rollout.prompts=31", "minibatches=2")
    parts = ("optim.lrr: unknown", "spec: no file", "layout: 4 attention heads", "rollout.prompts: 31 prompts")
    assert all(part in text for part in parts)


@pytest.mark.parametrize(
    ("overrides", "wrong"),
    [
        (("steps=many", "minibatches=7"), ["steps", "rollout.prompts", "checkpoint.every"]),
        (("rollout.temperature=0", "rollout.prompts=31", "minibatches=2"), ["rollout.temperature", "rollout.prompts"]),
        (("rollout.n=7", "micro_batch=56"), ["rollout.n"]),  # 7 x 32 rollouts are a multiple of 56
        (("batch_size=33", "layout.dp=3", "layout.tp=1"), ["batch_size"]),
        (("rollout=5", "micro_batch=100"), ["rollout"]),
        (("policy=3", "layout.tp=3"), ["policy"]),
        (("task=3", "evaluation.split=x"), ["task"]),
    ],
)
def test_nothing_is_concluded_from_a_setting_that_is_wrong(overrides: tuple[str, ...], wrong: list[str]) -> None:
    lines = complaint(*overrides).splitlines()
    assert [line.removeprefix(f"{RUN}: ").partition(":")[0] for line in lines] == wrong


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("optim.betas=[0.9, 0.99]", "did you mean 'beta1' and 'beta2'?"),
        ("optim.learning_rate=1", "did you mean 'lr'?"),
        ("learning_rate=1", "did you mean 'optim.lr'?"),
        ("rollout.num_generations=1", "did you mean 'group_size'?"),
        ("max_completion_length=1", "did you mean 'rollout.max_response_tokens'?"),
        ("bf16=true", "did you mean 'precision'?"),
        ("layout.loss_type=1", "the spec says it, not the run file"),
        ("kl_coef=1", "the spec says it, not the run file"),
        ("optim.frobnicate=1", "allowed here: beta1, beta2"),
    ],
)
def test_names_of_other_frameworks(override: str, hint: str) -> None:
    assert f"unknown setting; {hint}" in complaint(override)


def test_every_setting_that_a_name_elsewhere_stands_for_exists() -> None:
    known = RunFile.model_fields
    for setting in other_names.NAMES:
        group, _, leaf = setting.rpartition(".")
        assert leaf in (known if not group else type(known[group].default).model_fields)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "a run file is a mapping"),
        ("steps: 1\nsteps: 2\n", "the key 'steps' stands twice"),
        ("", "a run file is a mapping"),
        ("name: x\n", "spec: missing"),
        ("!!python/object/apply:os.system [exit]\n", "not valid YAML"),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(RunFileError, match=expected):
        load_run(path)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="cannot be read: no such file"):
        load_run(tmp_path / "nope.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunFileError, match="not UTF-8"):
        load_run(tmp_path / "binary.yaml")


def test_numbers_are_read_as_people_write_them() -> None:
    assert load_run(RUN, ["optim.lr=3e-4"]).file.optim.lr == 3e-4
    assert load_run(RUN, ["optim.lr=1"]).file.optim.lr == 1.0


def test_resolved_run_file_reads_back_the_same(tmp_path: Path) -> None:
    """Started from its own directory, with the spec's copy beside it, it is the same run."""
    loaded = load_run(RUN, ["optim.lr=3e-4", "layout.tp=1", f"output={tmp_path}"])
    (tmp_path / "spec.trace").write_bytes(loaded.spec_path.read_bytes())
    (tmp_path / "run.yaml").write_text(dump_run(loaded))
    again = load_run(tmp_path / "run.yaml")
    assert again.facts == loaded.facts
    assert again.file.optim == loaded.file.optim
    assert again.directory == loaded.directory
    assert changed_settings(dump_run(loaded), again) == []
    changed = load_run(RUN, ["optim.lr=1e-3", "layout.tp=1", f"output={tmp_path}"])
    assert changed_settings(dump_run(loaded), changed) == ["optim.lr: 0.0003 -> 0.001"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", ":2:1: not valid YAML: the key 'a' stands twice"),
        ("[1]: 2\n", ":1:1: not valid YAML: a key is a word or a number"),
        ("name: \x01\n", ": not valid YAML: the character U+0001 at place 6 is not allowed"),
        ("name: !!python/object:os.system x\n", ":1:7: not valid YAML: could not determine a constructor"),
        ("[" * 5000, ": not valid YAML: it is nested too deeply"),
        ("name: 2020-13-45\n", ": spec: missing"),
        ("true: 3\n", "keys should be strings"),
        ("null: 3\n", ": None: None is not allowed: keys should be strings"),
        ("rollout: {1: 3}\n", ": rollout.1: 1 is not allowed: keys should be strings"),
        ("- a\n", ": a run file is a mapping"),
    ],
)
def test_text_that_is_no_run_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(RunFileError) as raised:
        load_run(path)
    assert str(raised.value).startswith(str(path))
    assert message in str(raised.value)


def test_spec_with_errors_is_shown_before_a_run(tmp_path: Path) -> None:
    spec = tmp_path / "bad.trace"
    spec.write_text("rest: grpo()\nkey: fkl()\n")
    with pytest.raises(SpecError, match="shadowed-route"):
        prepare_run(RUN, [f"spec={spec}"])


def test_what_the_engine_does_not_run_is_refused_before_a_run(tmp_path: Path) -> None:
    spec = tmp_path / "wide.trace"
    spec.write_text(
        "spans key(cap=25%)\n"
        "rollouts extra = policy(n=2)\n"
        "key when correct: fkl(w=0.5, topk=100, tail=bucket, anneal=linear(10))\n"
        "rest when rows == extra: nll()\n"
        "rest: k3() + grpo(w=sigmoid(ref_logp))\n"
    )
    with pytest.raises(SpecError) as raised:
        prepare_run(RUN, [f"spec={spec}"])
    text = str(raised.value)
    assert text.count("engine-unsupported") == 3
    assert "extra rollouts ('extra') are not sampled" in text
    assert "k3(to=ref) is not run" in text
    assert "the signal 'ref_logp' is not measured" in text


@pytest.mark.parametrize("arguments", [["layout.tp=3"], ["optim.lrr=1"], ["spec=nope.trace"]])
def test_bad_input_ends_with_2_and_no_traceback(arguments: list[str]) -> None:
    for program in (["-m", "trace_dsl", "train"], ["-m", "megatron_bridge.train"]):
        done = subprocess.run([sys.executable, *program, str(RUN), *arguments], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
