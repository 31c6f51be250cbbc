"""The rules that read a resolved spec, one module each, and the registry of all rules.

A rule module has a `RULE` (its name, severity, summary) and a `check(spec, facts)` that yields diagnostics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trace_dsl.checks import (
    advantage_whitened_after_kl,
    anneal_never_reached,
    cap_exceeds_one,
    clip_bounds_as_ratios,
    dead_advantage,
    direction_vs_condition,
    ema_rate_near_one,
    hard_pclip,
    jsd_near_endpoint,
    mixed_denominator,
    negative_kl_weight,
    negative_weight,
    no_default_route,
    nothing_trained,
    payload_too_weak,
    rkl_on_teacher_topk,
    rollouts_unused,
    route_falls_silent,
    schedule_exceeds_run,
    self_teacher_no_op,
    shadowed_route,
    span_never_annotated,
    span_text_leak,
    state_only_advantage,
    stop_token_mismatch,
    stop_token_untrained,
    teacher_context_missing,
    teacher_independent_gradient,
    teacher_unused,
    topk_without_tail,
    unbounded_privileged_exposure,
    undefined_weight,
    unguarded_context,
    unreachable_predicate,
    unused_let,
    unused_suppression,
    vocab_mismatch,
    zero_spread,
    zero_variance_groups_kept,
    zero_weight,
)
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Spec
from trace_dsl.rules import DEFAULT_RULES, LANGUAGE_RULES, RuleInfo, RuleSelection


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    info: RuleInfo
    run: Callable[[Spec, RunFacts | None], Iterator[Diagnostic]]


CHECKS: tuple[Check, ...] = tuple(
    Check(info=module.RULE, run=module.check)
    for module in (
        shadowed_route,
        no_default_route,
        nothing_trained,
        unreachable_predicate,
        zero_weight,
        undefined_weight,
        unguarded_context,
        zero_spread,
        negative_kl_weight,
        negative_weight,
        self_teacher_no_op,
        ema_rate_near_one,
        unbounded_privileged_exposure,
        teacher_unused,
        rollouts_unused,
        unused_let,
        cap_exceeds_one,
        schedule_exceeds_run,
        anneal_never_reached,
        dead_advantage,
        span_never_annotated,
        teacher_context_missing,
        span_text_leak,
        topk_without_tail,
        rkl_on_teacher_topk,
        hard_pclip,
        clip_bounds_as_ratios,
        jsd_near_endpoint,
        state_only_advantage,
        advantage_whitened_after_kl,
        teacher_independent_gradient,
        vocab_mismatch,
        stop_token_mismatch,
        payload_too_weak,
        stop_token_untrained,
        mixed_denominator,
        route_falls_silent,
        direction_vs_condition,
        zero_variance_groups_kept,
    )
)

RULES: dict[str, RuleInfo] = {
    info.name: info for info in (*LANGUAGE_RULES, *(check.info for check in CHECKS), unused_suppression.RULE)
}


def check(
    spec: Spec, facts: RunFacts | None = None, selection: RuleSelection = DEFAULT_RULES
) -> tuple[Diagnostic, ...]:
    """Every finding of the selected rules, in the order of the file.

    Rules that need the facts of a run are silent without.
    """
    found = [
        diagnostic
        for one in CHECKS
        if selection.takes(one.info) and (facts is not None or not one.info.needs_facts)
        for diagnostic in one.run(spec, facts)
    ]
    return tuple(sorted(found, key=lambda diagnostic: (diagnostic.place, diagnostic.rule)))


__all__ = ["CHECKS", "RULES", "Check", "check"]
