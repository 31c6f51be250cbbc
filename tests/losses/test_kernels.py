"""The kernels' formulas on distributions small enough to work out by hand, and their branches.

Legend: T tokens, N rows, v vocabulary columns.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from megatron_bridge.chunk_rows import default_chunk_rows
from megatron_bridge.losses import TeacherHidden, routed_linear_loss
from megatron_bridge.losses.kernels import log_mixture_ratios_
from megatron_bridge.losses.row_groups import rows_by_flags
from megatron_bridge.losses.sampled import policy_gradient
from tests.losses.cases import FKL, RKL, make_case
from trace_dsl.lowering.fused import (
    CispoKernel,
    DivergenceKernel,
    EntropyKernel,
    FusedKernel,
    FusedRouting,
    K3Kernel,
    NllKernel,
    PolicyGradientKernel,
)
from trace_dsl.model import DivergenceKind, MixAnchor, RatioLevel, TopK


def _loss_of_two_tokens(kernel: FusedKernel) -> tuple[float, list[float]]:
    """Loss and logit gradient at one row: the student gives (0.9, 0.1), the teacher (0.5, 0.5), the target is
    token 0.

    With one hidden unit at 1 the weight column is the logits, and its gradient theirs.
    """
    weight_VH = torch.tensor([[0.9], [0.1]]).log().requires_grad_()
    one = torch.ones(1, 1)
    teacher = TeacherHidden(
        rows_T=torch.tensor([0]), hidden_RH=one, output_weight_vH=torch.tensor([[0.5], [0.5]]).log()
    )
    result = routed_linear_loss(
        one,
        weight_VH,
        target_T=torch.tensor([0]),
        old_logp_T=torch.tensor([math.log(0.9)]),
        routing=FusedRouting(kernels=(kernel,), weight_CT=one, advantage_CT=2 * one, row_of_T=torch.tensor([0])),
        teacher_hidden={"large": teacher},
    )
    result.loss.backward()
    assert weight_VH.grad is not None
    return result.loss.item(), weight_VH.grad[:, 0].tolist()


@pytest.mark.parametrize(
    ("kernel", "loss", "gradient"),
    [
        # 0.5 ln(0.5/0.9) + 0.5 ln(0.5/0.1);  student - teacher
        (FKL, 0.5108256237659907, (0.4, -0.4)),
        # 0.9 ln(0.9/0.5) + 0.1 ln(0.1/0.5);  0.9 (ln(0.9/0.5) - 0.3680642071684971)
        (RKL, 0.3680642071684971, (0.19775021196025977, -0.19775021196025977)),
        # mix (0.7, 0.3): 0.5 (0.5 ln(0.5/0.7) + 0.5 ln(0.5/0.3)) + 0.5 (0.9 ln(0.9/0.7) + 0.1 ln(0.1/0.3));
        # 0.5 * 0.9 * 0.1 * (ln(0.9/0.7) - ln(0.1/0.3))
        (
            DivergenceKernel(DivergenceKind.JSD, "large", 0.5),
            0.10174922507919676,
            (0.06074672020612232, -0.06074672020612232),
        ),
        # mix (0.7, 0.3): 0.5 ln(0.5/0.7) + 0.5 ln(0.5/0.3);  0.9 * 0.1 * 0.5 * (-0.5/0.7 + 0.5/0.3)
        (
            DivergenceKernel(DivergenceKind.SKL, "large", 0.5),
            0.08717669357238884,
            (0.04285714285714286, -0.04285714285714286),
        ),
        # mix (0.7, 0.3): 0.9 ln(0.9/0.7) + 0.1 ln(0.1/0.3);
        # 0.9 * 0.1 * (ln(0.9/0.7) - 0.5 * 0.9/0.7 - ln(0.1/0.3) + 0.5 * 0.1/0.3)
        (
            DivergenceKernel(DivergenceKind.SRKL, "large", 0.5),
            0.11632175658600470,
            (0.07863629755510179, -0.07863629755510179),
        ),
        # -ln 0.9;  student - onehot
        (NllKernel(), 0.10536051565782628, (-0.1, 0.1)),
        # 0.9 ln 0.9 + 0.1 ln 0.1;  0.9 * 0.1 * (ln 0.9 - ln 0.1)
        (EntropyKernel(), -0.3250829733914482, (0.19775021196025977, -0.19775021196025977)),
        # ratio 1, advantage 2: -2;  -2 (onehot - student)
        (PolicyGradientKernel(0.2, 0.2), -2.0, (-0.2, 0.2)),
    ],
    ids=["fkl", "rkl", "jsd", "skl", "srkl", "nll", "entropy", "policy gradient"],
)
def test_two_tokens_by_hand(kernel: FusedKernel, loss: float, gradient: tuple[float, float]) -> None:
    """Known failure: forward and reverse KL swapped; their numbers differ here."""
    measured_loss, measured_gradient = _loss_of_two_tokens(kernel)
    assert measured_loss == pytest.approx(loss, rel=1e-6)
    assert measured_gradient == pytest.approx(gradient, rel=2e-6)


def test_jsd_does_not_change_direction_at_its_ends() -> None:
    """Known failure: a JSD whose beta near 0 or 1 jumps to another divergence.

    jsd(b) tends to 0 at both ends; jsd(b) / b tends to KL(teacher || student) at 0, jsd(b) / (1 - b) to
    KL(student || teacher) at 1.
    """
    for parameter, slope in ((1e-4, 0.5108256237659907), (1 - 1e-4, 0.3680642071684971)):
        loss, _ = _loss_of_two_tokens(DivergenceKernel(DivergenceKind.JSD, "large", parameter))
        assert loss / min(parameter, 1 - parameter) == pytest.approx(slope, rel=2e-3)


@pytest.mark.parametrize("share", [1e-6, 0.1, 0.5, 0.9, 1 - 1e-6])
def test_log_mixture_is_accurate_at_every_distance(share: float) -> None:
    """Log-ratios from 1e-6 to 200 of either sign: no overflow, no cancellation, exactly zero at zero."""
    magnitude = torch.logspace(-6, math.log10(200), 40)
    log_ratio = torch.cat((-magnitude, torch.zeros(1), magnitude))
    over_student, over_teacher = log_mixture_ratios_(log_ratio.clone(), share)
    exact = log_ratio.double()
    expected = torch.logaddexp(exact + math.log(share), torch.full_like(exact, math.log1p(-share)))
    # near zero the definition itself cancels: there it is share x + share (1 - share) x^2 / 2 + O(x^3)
    series = share * exact + share * (1 - share) * exact**2 / 2
    expected = torch.where(exact.abs() < 1e-4, series, expected)
    torch.testing.assert_close(over_student.double(), expected, rtol=2e-6, atol=2e-7 * share)
    torch.testing.assert_close(over_teacher.double(), expected - exact, rtol=2e-6, atol=2e-7 * (1 - share))
    assert over_student[40] == over_teacher[40] == 0


def _surrogate(kernel: PolicyGradientKernel, ratio: float, advantage: float) -> tuple[float, float, bool]:
    term = policy_gradient(
        kernel,
        log_ratio_N=torch.tensor([math.log(ratio)]),
        advantage_N=torch.tensor([advantage]),
    )
    assert term.clipped_N is not None
    return term.value_N.item(), term.slope_N.item(), bool(term.clipped_N)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.1, 2.0, -2.2, -2.2),  # inside: -ratio A, whose derivative by logp is itself
        (1.5, 2.0, -2.6, 0.0),  # above, A > 0: clipped at 1.3
        (1.5, -2.0, 3.0, 3.0),  # above, A < 0: the pessimistic side, not clipped
        (0.5, 2.0, -1.0, -1.0),  # below, A > 0: not clipped
        (0.5, -2.0, 1.6, 0.0),  # below, A < 0: clipped at 0.8
        (5.0, -2.0, 6.0, 0.0),  # far above, A < 0: the dual clip at 3
        (5.0, 2.0, -2.6, 0.0),  # dual leaves A > 0 alone
        (5.0, 0.0, 0.0, 0.0),
    ],
)
def test_every_side_of_the_clip(ratio: float, advantage: float, value: float, slope: float) -> None:
    kernel = PolicyGradientKernel(0.2, 0.3, dual=3.0)
    measured_value, measured_slope, clipped = _surrogate(kernel, ratio, advantage)
    assert measured_value == pytest.approx(value, rel=1e-6)
    assert measured_slope == pytest.approx(slope, rel=1e-6)
    assert clipped == (slope == 0 and advantage != 0)


def test_ratio_beyond_float32() -> None:
    """logp - old_logp over 80: the formula's value where it is finite, an infinite loss where it is not, no
    clamp."""

    def value(advantage: float, exponent: float, dual: float | None) -> float:
        term = policy_gradient(
            PolicyGradientKernel(0.2, 0.2, dual=dual),
            log_ratio_N=torch.tensor([exponent]),
            advantage_N=torch.tensor([advantage]),
        )
        assert not term.slope_N.isnan().any()
        return term.value_N.item()

    assert value(1.0, 100.0, None) == pytest.approx(-1.2)
    assert value(-1.0, 100.0, 3.0) == pytest.approx(3.0)
    assert value(-1.0, 85.0, None) == pytest.approx(math.exp(85.0), rel=1e-5)
    assert value(-1.0, 100.0, None) == math.inf
    assert value(0.0, 100.0, None) == 0.0
    assert value(1.0, -100.0, None) == pytest.approx(0.0)
    assert value(-1.0, -100.0, None) == pytest.approx(0.8)


def _call(
    kernel: FusedKernel,
    *,
    weight: Tensor | None = None,
    target: int = 1,
    old_logp: Tensor | None = None,
    teacher: TeacherHidden | None = None,
    **options: object,
) -> None:
    routing = FusedRouting(
        kernels=(kernel,),
        weight_CT=torch.ones(1, 2) if weight is None else weight,
        advantage_CT=torch.ones(1, 2),
        row_of_T=torch.zeros(2, dtype=torch.int64),
    )
    hidden_TH, weight_vH = torch.ones(2, 3), torch.ones(5, 3)
    routed_linear_loss(
        hidden_TH,
        weight_vH,
        target_T=torch.tensor([0, target]),
        old_logp_T=old_logp,
        routing=routing,
        teacher_hidden={} if teacher is None else {"large": teacher},
        **options,  # type: ignore[arg-type]
    )


def _teacher(rows: list[int], columns: int = 5) -> TeacherHidden:
    return TeacherHidden(
        rows_T=torch.tensor(rows), hidden_RH=torch.ones(len(rows), 3), output_weight_vH=torch.ones(columns, 3)
    )


def test_refusals() -> None:
    """What a kernel needs and what is out of its range is refused by name; a wrong number would be seen hours
    later, if at all.

    Known failures: float weights in an integer mask became zero; a setting was silently dropped.
    """
    old_logp = torch.zeros(2)
    for kernel, what in (
        (PolicyGradientKernel(0.2, 0.2, tis=2.0), "needs proximal_logp_T"),
        (PolicyGradientKernel(0.2, 0.2, tis=-1.0), "tis is -1.0, expected a finite number above 0"),
        (PolicyGradientKernel(math.nan, 0.2), "clip_low is nan, expected a number above 0, at most 1"),
        (PolicyGradientKernel(-0.2, 0.2), "clip_low is -0.2, expected a number above 0, at most 1"),
        (PolicyGradientKernel(1.2, 0.2), "clip_low is 1.2, expected a number above 0, at most 1"),
        (PolicyGradientKernel(0.2, math.nan), "clip_high is nan, expected a finite number above 0"),
        (PolicyGradientKernel(0.2, -0.2), "clip_high is -0.2, expected a finite number above 0"),
        (PolicyGradientKernel(0.2, 0.2, dual=1.0), "dual is 1.0, expected a finite number above 1"),
        (PolicyGradientKernel(0.2, 0.2, dual=math.nan), "dual is nan, expected a finite number above 1"),
        (CispoKernel(-0.1), "high is -0.1, expected a finite number above 0"),
        (CispoKernel(math.nan), "high is nan, expected a finite number above 0"),
        (PolicyGradientKernel(0.2, 0.2, anchor=MixAnchor("large", 1.0)), "share of the anchor"),
        (replace(FKL, top_k=TopK(k=0)), "topk is 0, expected at least 1"),
        (replace(FKL, pclip=0.0), "pclip is 0.0, expected"),
        (replace(FKL, temperature=math.inf), "temperature is inf, expected"),
        (K3Kernel("ref"), r"needs reference_logp\['ref'\]: given are none"),
    ):
        with pytest.raises(ValueError, match=what):
            _call(kernel, old_logp=old_logp, teacher=_teacher([0, 1]))
    with pytest.raises(ValueError, match="no rows of teacher 'large': given are none"):
        _call(PolicyGradientKernel(0.2, 0.2, anchor=MixAnchor("large", 0.5)), old_logp=old_logp)
    with pytest.raises(ValueError, match=r"proximal_logp_T is \(3,\): expected \(2,\)"):
        _call(NllKernel(), proximal_logp_T=torch.zeros(3))
    with pytest.raises(ValueError, match="needs old_logp_T"):
        _call(K3Kernel("old"))
    with pytest.raises(ValueError, match="needs old_logp_T"):
        _call(PolicyGradientKernel(0.2, 0.2))
    with pytest.raises(ValueError, match="needs old_logp_T"):
        _call(CispoKernel(0.2))
    with pytest.raises(ValueError, match="no rows of teacher 'large': given are none"):
        _call(FKL)
    with pytest.raises(ValueError, match="no hidden row for 1 of 2 tokens"):
        _call(FKL, teacher=_teacher([1]))
    with pytest.raises(ValueError, match=r"output weight of teacher 'large' is \(6, 3\)"):
        _call(FKL, teacher=_teacher([0, 1], columns=6))
    for parameter in (None, 0.0, 1.0, 1.5):
        with pytest.raises(ValueError, match="ends excluded"):
            _call(DivergenceKernel(DivergenceKind.JSD, "large", parameter), teacher=_teacher([0, 1]))
    with pytest.raises(ValueError, match=r"1 routed targets are outside the vocabulary 0 \.\. 3"):
        _call(NllKernel(), target=4, vocab_size=4)
    _call(NllKernel(), target=-100, weight=torch.tensor([[1.0, 0.0]]))  # nothing is asked of an unrouted target
    with pytest.raises(TypeError, match="weights are not masks"):
        _call(NllKernel(), weight=torch.ones(1, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"weight_CT is \(1, 3\): expected \(1, 2\)"):
        _call(NllKernel(), weight=torch.ones(1, 3))
    with pytest.raises(ValueError, match="temperature is 0"):
        _call(NllKernel(), temperature=0.0)
    with pytest.raises(ValueError, match="vocab_size is 6: expected 1 to 5"):
        _call(NllKernel(), vocab_size=6)
    with pytest.raises(ValueError, match="chunk_rows is 0"):
        _call(NllKernel(), chunk_rows=0)


@pytest.mark.parametrize(
    "kernel",
    [
        PolicyGradientKernel(0.2, 0.2, tis=2.0),
        PolicyGradientKernel(0.2, 0.2, level=RatioLevel.SEQUENCE, tis=2.0),
        PolicyGradientKernel(0.2, 0.2, anchor=MixAnchor("large", 0.5)),
        CispoKernel(0.2),
        K3Kernel("old"),
        K3Kernel("ref"),
        FKL,
    ],
)
def test_a_channel_without_weight_asks_for_nothing(kernel: FusedKernel) -> None:
    """A schedule that starts or ends at zero keeps its channel, and what it reads is not gathered at such a step."""
    _call(kernel, weight=torch.zeros(1, 2))
    _call(kernel, weight=torch.zeros(1, 2), evaluate_all=True)
    with pytest.raises(ValueError, match=r"needs|no rows of teacher"):
        _call(kernel)


def test_what_a_channel_without_weight_lacks_changes_no_other_channel() -> None:
    case = make_case((NllKernel(), PolicyGradientKernel(0.2, 0.2, tis=2.0), K3Kernel("gone")))
    case.routing.weight_CT[1:] = 0.0
    loss = routed_linear_loss(
        case.hidden_TH, case.weight_VH, target_T=case.target_T, old_logp_T=None, routing=case.routing
    )
    alone = replace(
        case.routing,
        kernels=(NllKernel(),),
        weight_CT=case.routing.weight_CT[:1],
        advantage_CT=case.routing.advantage_CT[:1],
    )
    expected = routed_linear_loss(
        case.hidden_TH, case.weight_VH, target_T=case.target_T, old_logp_T=None, routing=alone
    )
    assert torch.equal(loss.loss, expected.loss)
    assert loss.loss_C.tolist() == [*expected.loss_C.tolist(), 0.0, 0.0]
    assert loss.stats.value_CT[1:].isnan().all()


@pytest.mark.parametrize(
    ("hidden", "weight", "message"),
    [
        (torch.float32, torch.bfloat16, "hidden rows of teacher 'large' are torch.float32, its output weight"),
        (torch.float64, torch.float64, "computed in torch.float64, and the student is computed in torch.float32"),
        (torch.float16, torch.float16, "of teacher 'large' are torch.float16: expected float32 or bfloat16"),
    ],
)
def test_a_teacher_of_another_precision_is_refused(hidden: torch.dtype, weight: torch.dtype, message: str) -> None:
    """Not rounded: on CUDA a product would take anything but float32 for bfloat16."""
    given = _teacher([0, 1])
    teacher = replace(given, hidden_RH=given.hidden_RH.to(hidden), output_weight_vH=given.output_weight_vH.to(weight))
    with pytest.raises(TypeError, match=message):
        _call(FKL, teacher=teacher)
    both = {"hidden_RH": given.hidden_RH.bfloat16(), "output_weight_vH": given.output_weight_vH.bfloat16()}
    _call(FKL, teacher=replace(given, **both))  # as exact in float32


def test_too_many_channels_to_tell_apart_is_refused_with_the_way_out() -> None:
    flags = [torch.ones(2, dtype=torch.bool)] * 63
    assert [flags for _, flags in rows_by_flags(flags[0], flags[:62])] == [tuple(range(62))]
    with pytest.raises(ValueError, match=r"63 channels .* at most 62 fit; let routes share kernels"):
        list(rows_by_flags(flags[0], flags))


def test_default_chunk_rows() -> None:
    """Within the device's bytes and rows, evenly cut, never zero."""
    assert default_chunk_rows(8192, 151936, "cuda") == 2731
    assert default_chunk_rows(100_000, 1000, "cuda") == 4000
    assert default_chunk_rows(2048, 32768, "cpu") == 256
    assert default_chunk_rows(2048, 8192, "cpu") == 1024
    assert default_chunk_rows(512, 151936, "cpu") == 103
    assert default_chunk_rows(5, 1 << 40, "cpu") == 1
    assert default_chunk_rows(0, 1000, "cpu") == 1
