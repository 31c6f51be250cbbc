"""A task in a run file: every mistake is one clear line, found before anything starts, and no code is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_bridge.run_file import changed_settings, dump_run, load_run
from megatron_bridge.tasks.base import PromptFormat
from trace_dsl.errors import RunFileError, TraceError
from trace_dsl.lint import lint_text

POLICY = Path("specs/demo/policy").resolve()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run file with a task of its own; judges.py must never be imported by reading it."""
    (tmp_path / "spec.trace").write_text("rest: grpo()\n")
    (tmp_path / "judges.py").write_text("raise SystemExit('imported')\n")
    rows = [{"question": f"{n} + 1", "answer": str(n + 1), "steps": "add"} for n in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "bare.jsonl").write_text('{"question": "1"}\n')
    settings: dict[str, Any] = {
        "name": "own",
        "spec": "spec.trace",
        "policy": str(POLICY),
        "steps": 4,
        "rollout": {"prompts": 4, "group_size": 2, "max_response_tokens": 16},
        "evaluation": {"problems": 8},
        "output": str(tmp_path / "runs"),
        "task": {
            "data": {"kind": "files", "splits": {"train": "rows.jsonl", "eval": ["rows.jsonl"]}},
            "prompt": {"template": "{question} ="},
            "verifier": {"kind": "python", "function": "judges:grade"},
        },
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("task=3", "task: 3 is not allowed"),
        ("task=leger", "'ledger-shuffled'; did you mean 'ledger'?"),
        ("task={}", "task.data: missing, and it has no default"),
        ("task.dta=1", "task.dta: unknown setting; did you mean 'data'?"),
        ("task.data.kind=file", "task.data: kind: 'file' is not allowed: choose files, reasoning_gym; did you mean"),
        ("task.data={}", "task.data: kind: missing, and it has no default"),
        ("task.data=rows.jsonl", "task.data: 'rows.jsonl' is not allowed: it is a group of settings"),
        ("task.data.shufle=true", "task.data.shufle: unknown setting; did you mean 'shuffle'?"),
        ("task.data.splits={eval: rows.jsonl}", "task.data.splits: there is no split 'train', only eval"),
        ("task.data.splits.train=gone.jsonl", "task.data.splits.train: "),
        ("task.data.splits.train=gone.jsonl", "gone.jsonl: cannot be read: no such file or directory"),
        ("task.data.splits.train=3", "task.data.splits.train: 3 is not allowed"),
        ("task.data.splits.train=[]", "task.data.splits.train: [] is not allowed: name at least one"),
        ("task.data.columns=[question, anser]", "row 1: no column 'anser'; it has answer, question, steps"),
        ("task.prompt.template='{queston}'", "prompt.template: no column 'queston' in every file; did you mean"),
        ("task.prompt.template='{'", "task.prompt.template: '{': "),
        ("task.prompt.chat=true", "task.prompt.chat: the tokenizer in"),
        ("task.prompt.thinking=true", "task.prompt: system and thinking need chat: true"),
        ("task.solution=step", "task.solution: no column 'step' in every file; did you mean 'steps'?"),
        ("task.verifier.kind=maths", "task.verifier: kind: 'maths' is not allowed: choose exact, math, reasoning_gym"),
        ("task.verifier.function=judges", "task.verifier.function: 'judges' is not allowed: write module:function"),
        ("task.verifier.folder=gone", "task.verifier.folder: no folder"),
        ("task.verifier.tiemout=1", "task.verifier.tiemout: unknown setting; did you mean 'timeout'?"),
        ("task.verifier.timeout=0", "task.verifier.timeout: 0 is not allowed"),
        (
            "task.verifier={kind: exact, column: total}",
            "task.verifier.column: no column 'total' in every file",
        ),
        ("task.verifier={kind: reasoning_gym}", "task.verifier.kind: reasoning_gym judges problems of"),
        ("task.annotator={kind: openai, model: m}", "task.annotator.base_url: missing, and it has no default"),
        ("task.annotator={kind: openai, model: m, base_url: 'http://u:p@h/v1'}", "task.annotator.base_url: "),
        ("task.annotator={kind: self, modle: m}", "task.annotator.modle: unknown setting"),
        ("task.annotator={kind: self, key_types: [Big]}", "'Big' is not allowed: one word of at most 40 characters"),
        ("task.annotator={kind: programmatic, function: 'a:b'}", "task.annotator.types: missing"),
        ("task.contexts={diagnose: x}", "task.contexts.diagnose: no such context; did you mean 'diagnosis'?"),
        ("task.contexts={diagnosis: '{prompt}'}", "task.contexts.diagnosis: it does not show {diagnosis}"),
        ("task.contexts={diagnosis: '{diagnosis} {answr}'}", "task.contexts.diagnosis: nothing is called {answr}"),
        ("evaluation.split=test", "evaluation.split: 'test' is no split of the task 'task': choose from train, eval"),
        (
            "evaluation.also=[eval, test]",
            "evaluation.also: 'test' is no split of the task 'task': choose from train, eval",
        ),
    ],
)
def test_a_mistake_is_one_clear_line(run: Path, override: str, expected: str) -> None:
    with pytest.raises(RunFileError) as raised:
        load_run(run, [override])
    assert expected in str(raised.value)
    assert all(line.startswith(str(run)) for line in str(raised.value).splitlines())


def test_a_column_must_be_in_every_file(run: Path) -> None:
    with pytest.raises(RunFileError, match="no column 'answer' in every file: the data has question"):
        load_run(run, ["task.verifier={kind: exact}", "task.data.splits.eval=bare.jsonl"])


def test_the_facts_are_those_of_the_task(run: Path) -> None:
    facts = load_run(run).facts
    assert facts.annotator_labels == ()
    assert facts.teacher_contexts == ("sibling", "feedback")
    facts = load_run(run, ["task.annotator={kind: self}", "task.solution=steps"]).facts
    assert facts.annotator_labels == ("key", "error")
    assert facts.teacher_contexts == ("diagnosis", "solution", "sibling", "feedback")


def test_a_template_that_leaks_is_found_by_lint(run: Path) -> None:
    spec = "spans key, error\nteacher = self(sync=9, sees=diagnosis)\nerror: rkl(anneal=linear(3))\nrest: grpo()\n"
    own = "task.annotator={kind: self}"
    clean = lint_text(spec, load_run(run, [own]).facts)
    assert not clean.errors
    leaking = load_run(run, [own, "task.contexts={diagnosis: '{diagnosis} {span} {prompt}'}"]).facts
    (found,) = lint_text(spec, leaking).errors
    assert found.rule == "span-text-leak"
    assert "also shows {span}" in found.message


def test_the_resolved_run_file_is_the_same_task_from_anywhere(run: Path, tmp_path: Path) -> None:
    overrides = [
        "task.annotator={kind: openai, base_url: 'http://h/v1', model: m, api_key_env: KEY, cache: kept}",
        "task.contexts={diagnosis: 'Mind {diagnosis}. {prompt}'}",
    ]
    loaded = load_run(run, overrides)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "spec.trace").write_bytes(loaded.spec_path.read_bytes())
    (elsewhere / "run.yaml").write_text(dump_run(loaded))
    again = load_run(elsewhere / "run.yaml")
    assert again.facts == loaded.facts
    assert changed_settings(dump_run(loaded), again) == []
    assert str(tmp_path / "kept") in dump_run(loaded)


def test_what_only_reading_the_data_shows_is_told_before_ranks_start(run: Path) -> None:
    exact = "task.verifier={kind: exact}"
    load_run(run, [exact]).try_task()
    with pytest.raises(TraceError, match=r"evaluation.problems: 9, but the split 'eval' has 8 rows; set it to 8"):
        load_run(run, [exact, "evaluation.problems=9"]).try_task()
    with pytest.raises(TraceError, match="judges:grade: SystemExit: imported"):
        load_run(run).try_task()
    gym = ["task.verifier={kind: reasoning_gym}", "task.prompt.template='{question}'"]
    with pytest.raises(TraceError, match="reasoning-gym has no task 'leg_countin'; did you mean 'leg_counting'"):
        load_run(run, ["task.data={kind: reasoning_gym, dataset: leg_countin}", *gym]).try_task()
    with pytest.raises(TraceError, match=r"task.data.config: reasoning-gym does not take it for 'leg_counting'"):
        load_run(run, ["task.data={kind: reasoning_gym, dataset: leg_counting, config: {nope: 1}}", *gym]).try_task()


def test_problems_are_a_function_of_split_seed_and_position(run: Path) -> None:
    loaded = load_run(run, ["task.solution=steps"])
    one, other = loaded.open_task(), loaded.open_task()
    assert one.prompt_format == PromptFormat()
    drawn = one.problems(split="train", seed=1, start=0, count=20)
    assert drawn[5:9] == other.problems(split="train", seed=1, start=5, count=4)
    assert sorted(p.prompt for p in drawn[:8]) == [f"{n} + 1 =" for n in range(8)]
    assert drawn[:8] != one.problems(split="train", seed=2, start=0, count=8)
    assert [p.prompt for p in one.problems(split="eval", seed=1, start=0, count=8)] == [f"{n} + 1 =" for n in range(8)]
    assert {p.solution for p in drawn} == {"add"}
    with pytest.raises(ValueError, match="unknown split 'ood': allowed are 'train', 'eval'"):
        one.problems(split="ood", seed=1, start=0, count=1)
