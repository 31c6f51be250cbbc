"""The element-wise formulas of `megatron_bridge.losses.kernels` as Triton functions.

Triton has no expm1 and log1p of its own for every backend, and both must be exactly 0 at 0 and accurate beside it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from megatron_bridge.losses.kernels import mixture_share
from trace_dsl.lowering.fused import DivergenceKernel
from trace_dsl.model import DivergenceKind

# What a gradient term is. Triton reads globals that are constexpr.
FKL = tl.constexpr(0)
RKL = tl.constexpr(1)
JSD = tl.constexpr(2)
SKL = tl.constexpr(3)
SRKL = tl.constexpr(4)
ENTROPY = tl.constexpr(5)
LIMIT = tl.constexpr(80.0)  # past it, log(1 + s (e^x - 1)) = x + log s to the last bit

_CODES = {
    DivergenceKind.FKL: FKL.value,
    DivergenceKind.RKL: RKL.value,
    DivergenceKind.JSD: JSD.value,
    DivergenceKind.SKL: SKL.value,
    DivergenceKind.SRKL: SRKL.value,
}


def coded(kernel: DivergenceKernel) -> tuple[int, float, float]:
    """(kind, the teacher's share in the mixture, the parameter), for kernels that specialise on them."""
    if kernel.parameter is None:
        return _CODES[kernel.kind], 0.5, 0.5
    return _CODES[kernel.kind], mixture_share(kernel), kernel.parameter


@triton.jit
def expm1(x):
    """e^x - 1: a polynomial where the difference would cancel."""
    p = 1.0 + x * (1.0 / 9)
    p = 1.0 + x * (1.0 / 8) * p
    p = 1.0 + x * (1.0 / 7) * p
    p = 1.0 + x * (1.0 / 6) * p
    p = 1.0 + x * (1.0 / 5) * p
    p = 1.0 + x * (1.0 / 4) * p
    p = 1.0 + x * (1.0 / 3) * p
    p = 1.0 + x * (1.0 / 2) * p
    return tl.where(tl.abs(x) < 0.5, x * p, tl.exp(x) - 1.0)


@triton.jit
def log1p(y):
    """log(1 + y) for y > -1: 2 atanh(y / (2 + y)) as a series up to y = 1, where the logarithm would cancel."""
    near = tl.minimum(y, 1.0)
    t = near / (2.0 + near)
    u = t * t
    p = 1.0 / 15 + u * (1.0 / 17)
    p = 1.0 / 13 + u * p
    p = 1.0 / 11 + u * p
    p = 1.0 / 9 + u * p
    p = 1.0 / 7 + u * p
    p = 1.0 / 5 + u * p
    p = 1.0 / 3 + u * p
    p = 1.0 + u * p
    return tl.where(y < 1.0, 2.0 * t * p, tl.log(1.0 + tl.maximum(y, 1.0)))


@triton.jit
def log_one_plus_share(x, share):
    """log(1 + share (e^x - 1)) for share <= 1/2, for any x."""
    beyond = tl.maximum(x - LIMIT, 0.0)
    return log1p(expm1(tl.minimum(x, LIMIT)) * share) + beyond


@triton.jit
def log_mixture_ratios(log_ratio, SHARE: tl.constexpr):
    """(log(mix / student), log(mix / teacher)), written around the smaller share."""
    if SHARE <= 0.5:
        over_student = log_one_plus_share(log_ratio, SHARE)
        over_teacher = over_student - log_ratio
    else:
        over_teacher = log_one_plus_share(-log_ratio, 1.0 - SHARE)
        over_student = over_teacher + log_ratio
    return over_student, over_teacher


@triton.jit
def mixture_slope(over_student, over_teacher, KIND: tl.constexpr, PARAMETER: tl.constexpr):
    """g of a jsd, skl or srkl kernel, from `log_mixture_ratios`."""
    if KIND == JSD:
        slope = over_student * (PARAMETER - 1.0)
    elif KIND == SKL:
        slope = expm1(-over_teacher) * (PARAMETER - 1.0)
    else:
        slope = expm1(-over_student) * (-PARAMETER) - over_student
    return slope
