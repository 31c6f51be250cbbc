"""Imports point one way, light things stay light, and the wheel holds what it must."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Later stages import earlier ones. A module belongs to the longest prefix that fits it.
STAGES = (
    ("trace_dsl.errors", "trace_dsl.facts", "trace_dsl.terms", "trace_dsl.model", "trace_dsl.strict_yaml"),
    ("trace_dsl.schedules", "trace_dsl.rules", "trace_dsl.spec_files", "trace_dsl.model_files"),
    ("trace_dsl.vocabulary", "trace_dsl.expressions"),
    ("trace_dsl.over_steps", "trace_dsl.certainty"),
    ("trace_dsl.reach", "trace_dsl.undefined"),
    ("trace_dsl.syntax",),
    ("trace_dsl.resolve",),
    ("trace_dsl.checks",),
    ("trace_dsl.lint", "trace_dsl"),
    (
        "trace_dsl.report",
        "trace_dsl.format",
        "trace_dsl.reference",
        "trace_dsl.reference_values",
        "trace_dsl.explain",
        "trace_dsl.prove",
    ),
    ("trace_dsl.plan",),
    ("trace_dsl.lowering",),
    ("trace_dsl.expect",),
    (
        "megatron_bridge.annotation",
        "megatron_bridge.templates",
        "megatron_bridge.workers",
        "megatron_bridge.with_parent",
    ),
    ("megatron_bridge.contexts", "megatron_bridge.data"),
    ("megatron_bridge.verify", "megatron_bridge.worker_main"),
    ("megatron_bridge.annotate",),
    ("megatron_bridge.chunk_rows",),
    ("megatron_bridge.losses", "megatron_bridge.tasks", "megatron_bridge.device"),
    (
        "megatron_bridge.atomic",
        "megatron_bridge.verdict",
        "megatron_bridge.torch_adam",
        "megatron_bridge.bucket_padding",
        "megatron_bridge.other_names",
    ),
    ("megatron_bridge.model", "megatron_bridge.parallel"),
    ("megatron_bridge.rollout", "megatron_bridge.checkpoint_files", "megatron_bridge.prompts"),
    ("megatron_bridge.run_settings", "megatron_bridge.log_settings"),
    ("megatron_bridge.other_optimizer", "megatron_bridge.checkpoint_writer"),
    (
        "megatron_bridge.checkpoint",
        "megatron_bridge.task_facts",
        "megatron_bridge.prerequisites",
        "megatron_bridge.settings_text",
    ),
    ("megatron_bridge.run_file",),
    ("megatron_bridge.teacher_models",),
    ("megatron_bridge.fit",),
    ("megatron_bridge.rank_log", "megatron_bridge.failure"),
    ("megatron_bridge.spec_change",),
    ("megatron_bridge.run_directory", "megatron_bridge.prepare"),
    ("megatron_bridge.training",),
    ("megatron_bridge.train", "megatron_bridge.launch", "megatron_bridge"),
    ("megatron_bridge.study",),
    ("trace_dsl.preview", "trace_dsl.page"),
    ("trace_dsl.run_report",),
    ("trace_dsl.lsp",),
    ("trace_dsl.cli", "trace_dsl.__main__"),
)
# What pages are made of.
PAGE_FILES = (
    "page/theme.css",
    "preview/assets/page.html",
    "preview/assets/page.css",
    "preview/assets/page.js",
    "run_report/assets/report.css",
    "run_report/assets/report.js",
)
# Facts about shapes and tasks are standard-library Python that earlier stages may read.
LIGHT = ("megatron_bridge.model.shape",)


def stage(module: str) -> int:
    best = max(
        (prefix for group in STAGES for prefix in group if module == prefix or module.startswith(prefix + ".")),
        key=len,
        default=None,
    )
    assert best is not None, f"{module} belongs to no stage; add it to STAGES"
    return next(i for i, group in enumerate(STAGES) if best in group)


def modules() -> list[tuple[str, Path]]:
    found = []
    for package in ("trace_dsl", "megatron_bridge"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found.append((name, path))
    return found


def imports_of(path: Path) -> set[str]:
    """Modules of this project that a file imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("trace_dsl", "megatron_bridge")}


def test_imports_point_one_way() -> None:
    back = [
        f"{module} imports {other}"
        for module, path in modules()
        for other in sorted(imports_of(path))
        if other not in LIGHT and not other.startswith("megatron_bridge.tasks") and stage(other) > stage(module)
    ]
    assert not back


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    long = [f"{path.relative_to(ROOT)}" for _, path in modules() if len(path.read_text().splitlines()) > 400]
    assert not long


@pytest.mark.parametrize(
    "arguments",
    [
        ["lint", "specs/demo/trace.trace"],
        ["lint", "specs", "--run", "specs/demo/run.yaml"],
        ["plan", "specs/demo/trace.trace", "--run", "specs/demo/run.yaml"],
        ["preview", "specs/demo/trace.trace", "--rollouts", "tests/preview/recorded/step_000010.jsonl", "--terminal"],
        ["diff", "specs/demo/trace.trace", "specs/demo/grpo.trace", "--run", "specs/demo/run.yaml"],
        ["prove", "specs/demo/trace.trace", "--implies", "specs/demo/grpo.trace"],
        ["explain", "--all"],
        ["fmt", "--check", "specs"],
        ["test", "gone.trace"],
        ["fit", "specs/demo/run.yaml"],
        ["train", "specs/demo/run.yaml", "steps=no"],
        ["report", "specs"],
        ["--help"],
    ],
    ids=" ".join,
)
def test_commands_that_compute_nothing_import_no_torch(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from trace_dsl.cli.main import app\n"
        "try:\n    app(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'megatron', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, check=True, capture_output=True)


def test_wheel_holds_the_grammar_and_every_package(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"trace_dsl/py.typed", "trace_dsl/grammar/trace.lark", "trace_dsl/pages/rules.md"} <= names
    assert {f"trace_dsl/{name}" for name in PAGE_FILES} <= names
    assert {str(path.relative_to(ROOT)) for _, path in modules()} <= names
    # unpacked elsewhere, the language needs no repository
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    spec = "key: fkl(w=1.0, warmup=50, anneal=cos)\nrest: grpo()\n"
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import trace_dsl; assert 'site' in trace_dsl.__file__, trace_dsl.__file__\n"
        f"assert not trace_dsl.lint_text({spec!r}).errors"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
