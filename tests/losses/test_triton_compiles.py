"""The Triton kernels compile for a GPU on a machine without one, and spill no register."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from megatron_bridge.losses import triton_gradient, triton_statistics  # noqa: E402
from megatron_bridge.losses.triton_math import ENTROPY, FKL, JSD, RKL, SKL, SRKL  # noqa: E402

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="nothing is compiled")

FLOATS, NUMBER = "*fp32", "i32"
MIXTURE = {name: FLOATS for name in ("student", "teacher", "student_shift", "teacher_shift", "packed")}
MIXTURE |= {"columns": NUMBER}
ROW = {"packed": FLOATS, "columns": NUMBER, "width": NUMBER}
STUDENT = ROW | {"logits": FLOATS, "target_logit": FLOATS}
TEACHER = ROW | {"logits": FLOATS, "student": FLOATS, "place": NUMBER}
GRADIENT = {
    **{name: FLOATS for name in ("student", "student_shift", "target_slope", "weights", "means", "norms")},
    "teachers": (FLOATS, FLOATS),
    "teacher_shifts": (FLOATS, FLOATS),
    "rows": NUMBER,
    "columns": NUMBER,
}
EVERY_TERM = tuple((kind.value, index % 2, 0.3, 0.3) for index, kind in enumerate((FKL, RKL, JSD, SKL, SRKL, ENTROPY)))


@pytest.mark.parametrize(
    ("module", "name", "signature", "constants"),
    [
        (triton_statistics, "_student_row", STUDENT, {"EXPONENTIALS": True}),
        (triton_statistics, "_student_row", STUDENT, {"EXPONENTIALS": False}),
        (triton_statistics, "_teacher_row", TEACHER, {}),
        (triton_statistics, "_mixture_row", MIXTURE, {"KIND": JSD.value, "SHARE": 0.5, "PARAMETER": 0.5}),
        (triton_statistics, "_mixture_row", MIXTURE, {"KIND": SRKL.value, "SHARE": 0.9, "PARAMETER": 0.1}),
        (triton_gradient, "_gradient_block", GRADIENT, {"TERMS": EVERY_TERM}),
    ],
)
def test_compiles_for_sm_90(
    module: Any, name: str, signature: dict[str, Any], constants: dict[str, Any], tmp_path: Path
) -> None:
    function = getattr(module, name)
    constants = {**constants, "BLOCK": triton_statistics.MAX_BLOCK}
    assert set(function.arg_names) == {*signature, *constants}
    source = ASTSource(
        fn=function, signature={n: signature.get(n, "constexpr") for n in function.arg_names}, constexprs=constants
    )
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(cubin)]
    usage = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "STACK:0 " in usage.stdout + usage.stderr
