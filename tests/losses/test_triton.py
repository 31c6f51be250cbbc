"""The Triton kernels: interpreted on a CPU, and compiled where there is a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.losses.cases import ALL_KERNELS, SINGLE_KERNELS, Case, evaluate, make_case
from tests.losses.oracle import loss_error, relative_error

ROOT = Path(__file__).parents[2]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_interpreted() -> None:
    """The oracle, self-teachers, offsets, odd shapes: see triton_cases.py."""
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/losses/triton_cases.py"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=ROOT, env={**environment, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _on_cuda(case: Case) -> Case:
    return replace(
        case,
        hidden_TH=case.hidden_TH.cuda(),
        weight_VH=case.weight_VH.cuda(),
        target_T=case.target_T.cuda(),
        old_logp_T=case.old_logp_T.cuda(),
        proximal_logp_T=case.proximal_logp_T.cuda(),
        reference_logp={name: logp_T.cuda() for name, logp_T in case.reference_logp.items()},
        routing=case.routing.to(torch.device("cuda")),
        teachers={name: (rows.cuda(), table.cuda()) for name, (rows, table) in case.teachers.items()},
    )


@needs_cuda
@pytest.mark.parametrize("vocabulary", [307, 9001])
@pytest.mark.parametrize("name", ALL_KERNELS)
def test_agrees_with_the_oracle_on_cuda(name: str, vocabulary: int) -> None:
    """A GPU's exponential is good to a few units in the last place, hence the wider tolerance."""
    case = make_case(ALL_KERNELS[name], vocabulary=vocabulary, padding=5)
    expected, measured = case.oracle(), evaluate(_on_cuda(case), chunk_rows=13)
    assert loss_error(measured.result.loss_C.cpu(), expected) < 2e-5
    assert relative_error(measured.hidden_gradient_TH.cpu(), expected.hidden_gradient_TH) < 2e-5
    assert relative_error(measured.weight_gradient_vH.cpu(), expected.weight_gradient_VH) < 2e-5


@needs_cuda
@pytest.mark.parametrize("name", ["fkl", "rkl", "jsd 0.5", "jsd 0.1", "jsd 0.9", "skl", "srkl"])
def test_teacher_that_is_the_student_on_cuda(name: str) -> None:
    kernel = replace(SINGLE_KERNELS[name], teacher="self")
    measured = evaluate(_on_cuda(make_case((kernel,), distance=0.0, sharpness=4.0, temperature=0.7)), chunk_rows=13)
    assert not measured.hidden_gradient_TH.any()
    assert not measured.weight_gradient_vH.any()
