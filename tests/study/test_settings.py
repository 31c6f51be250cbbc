"""The study file: every mistake is one clear line, and what it says is which runs there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megatron_bridge.study.cells import Phase, pairs, prepare_cell, report_cells, search_cells
from megatron_bridge.study.choose import settings_text
from megatron_bridge.study.runs import check_study
from megatron_bridge.study.settings import load_study
from tests.study.made import ROOT, made_study, write_study
from trace_dsl.errors import RunFileError

SPECS = ROOT / "specs" / "study"
GRPO: dict[str, Any] = {"spec": str(SPECS / "grpo.trace")}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"baseline": "gpro"}, "baseline: 'gpro' is none of the methods: choose from grpo, trace"),
        ({"serach_seeds": [1]}, "serach_seeds: unknown setting; did you mean 'search_seeds'?"),
        ({"search_seeds": [3, 4]}, "policies.weak.seeds: 3 are search_seeds too; settings chosen on a seed cannot be"),
        ({"policies": {"weak": {"policy": ".", "seeds": [1, 1]}}}, "policies.weak.seeds: a seed stands twice"),
        (
            {"methods": {"grpo": GRPO, "other": {**GRPO, "search": {"optim.lr": [1e-4, 2e-4]}}}},
            "the same number of settings to try, but they have grpo 1, other 2",
        ),
        ({"methods": {"grpo": GRPO, "gone": {"spec": "gone.trace"}}}, "methods.gone.spec: no file"),
        ({"run": "gone.yaml"}, "run: no file"),
        (
            {"policies": {"weak": {"policy": ".", "seeds": [1], "methods": ["grpo", "tracer"]}}},
            "policies.weak.methods: 'tracer' is none of the methods: choose from grpo, trace",
        ),
        (
            {"policies": {"weak": {"policy": ".", "seeds": [1], "methods": ["trace"]}}},
            "policies.weak.methods: 'grpo' is missing, with which the others are compared",
        ),
        (
            {"policies": {"weak": {"policy": ".", "seeds": [1], "settings_from": "weak"}}},
            "policies.weak.settings_from: 'weak' is no policy with a search of its own: choose from ",
        ),
        (
            {
                "policies": {
                    "weak": {"policy": ".", "seeds": [1], "methods": ["grpo"]},
                    "leak": {"policy": ".", "seeds": [1], "settings_from": "weak"},
                }
            },
            "policies.leak.settings_from: 'weak' has no search of 'trace': add it to its methods, or leave it out here",
        ),
        ({"compare": [["grpo", "tracer"]]}, "compare: 'tracer' is none of the methods: choose from grpo, trace"),
        ({"policies": {"weak": {"policy": [], "seeds": [1]}}}, "policies.weak.policy"),
        ({"policies": {}}, "policies: "),
    ],
)
def test_a_mistake_is_one_clear_line(changed: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(RunFileError) as raised:
        load_study(write_study(tmp_path, **changed))
    assert expected in str(raised.value)


def test_what_is_no_yaml_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: [small\n")
    with pytest.raises(RunFileError, match=r"study\.yaml:2:1: no YAML"):
        load_study(path)
    with pytest.raises(RunFileError, match="cannot be read"):
        load_study(tmp_path / "gone.yaml")


def test_the_study_of_the_documentation_is_sound() -> None:
    study = load_study(SPECS / "study.yaml")
    methods = set(study.file.methods)
    assert {"grpo", "trace-fkl-key", "trace-rkl-error", "both", "all-token-constant", "all-token-annealed"} <= methods
    assert {"sdpo", "srpo", "rlsd", "random-mask", "inverted-mask", "no-anneal", "self-annotated"} <= methods
    assert {"hard-pclip", "shuffled-labels"} <= methods
    assert [len(policy.seeds) for policy in study.file.policies.values()] == [5, 3, 3]


def test_the_search_is_every_combination_on_every_search_seed(tmp_path: Path) -> None:
    search = {"let w0": [0.5, 2.0], "optim.lr": [1e-4, 2e-4]}
    method = {"spec": str(SPECS / "trace_both.trace"), "search": search}
    study = made_study(tmp_path, methods={"grpo": method, "other": method}, search_seeds=[100, 101])
    cells = search_cells(study, "weak", "other")
    assert len({cell.name for cell in cells}) == len(cells) == 8
    assert {settings_text(cell.point) for cell in cells} >= {"w0=0.5, optim.lr=0.0001", "w0=2.0, optim.lr=0.0002"}
    reported = report_cells(study, "weak", "other", cells[0].point)
    assert [(cell.phase, cell.seed) for cell in reported] == [(Phase.REPORT, seed) for seed in (1, 2, 3)]


def test_one_setting_needs_no_search(tmp_path: Path) -> None:
    study = made_study(tmp_path, methods={"grpo": GRPO, "other": GRPO})
    assert search_cells(study, "weak", "grpo") == ()


def test_seeds_take_policies_made_alike_in_turn_and_searches_the_first(tmp_path: Path) -> None:
    policies = {"weak": {"policy": ["a", "b"], "seeds": [7, 3, 5]}, "other": {"policy": "c", "seeds": [1, 2]}}
    file = made_study(tmp_path, policies=policies).file
    assert [file.policies["weak"].policy_of(seed) for seed in (7, 3, 5)] == ["a", "b", "a"]
    assert [file.policies["weak"].policy_of(seed) for seed in file.search_seeds] == ["a"]
    assert [file.policies["other"].policy_of(seed) for seed in (1, 2, 100)] == ["c", "c", "c"]


def test_a_policy_that_only_later_seeds_take_is_missed_before_anything_runs(tmp_path: Path) -> None:
    policy = str(ROOT / "specs" / "demo" / "policy")
    study = made_study(tmp_path, policies={"weak": {"policy": [policy, "gone"], "seeds": [1, 2]}})
    with pytest.raises(RunFileError, match="gone"):
        check_study(study, tmp_path / "work")


def test_a_policy_may_have_some_of_the_methods(tmp_path: Path) -> None:
    policy = {"policy": str(ROOT / "specs" / "demo" / "policy"), "seeds": [1]}
    study = made_study(tmp_path, policies={"all": policy, "some": {**policy, "methods": ["grpo"]}})
    assert list(pairs(study)) == [("all", "grpo"), ("all", "trace"), ("some", "grpo")]


def test_a_run_is_its_method_and_nothing_else(tmp_path: Path) -> None:
    """The fingerprint knows what is measured: settings, spec and seed, not where files are."""
    study = made_study(tmp_path)
    points = study.file.methods["trace"].points
    cell = report_cells(study, "weak", "trace", points[1])[0]
    prepared = prepare_cell(study, cell, tmp_path / "work")
    spec = (tmp_path / "work" / "specs" / f"{cell.name}.trace").read_text()
    assert spec.startswith('extends "')
    assert spec.endswith("let w0 = 2.0\n")
    assert prepare_cell(study, cell, tmp_path / "elsewhere").fingerprint == prepared.fingerprint
    others = [
        report_cells(study, "weak", "trace", points[0])[0],
        report_cells(study, "weak", "trace", points[1])[1],
        report_cells(study, "weak", "grpo", study.file.methods["grpo"].points[0])[0],
    ]
    prints = {prepare_cell(study, other, tmp_path / "work").fingerprint for other in others}
    assert len(prints) == 3
    assert prepared.fingerprint not in prints


def test_a_let_that_the_spec_has_not_is_told_before_anything_runs(tmp_path: Path) -> None:
    method = {"spec": str(SPECS / "grpo.trace"), "search": {"optm.lr": [1e-4]}}
    study = made_study(tmp_path, methods={"grpo": GRPO, "other": method})
    with pytest.raises(RunFileError, match=r"optm: unknown setting; did you mean 'optim'"):
        prepare_cell(study, report_cells(study, "weak", "other", study.file.methods["other"].points[0])[0], tmp_path)
