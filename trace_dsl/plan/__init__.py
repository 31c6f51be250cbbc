"""Spec + run facts -> a frozen, hashable plan, and what there is to tell about it."""

from trace_dsl.plan.compile import compile_plan
from trace_dsl.plan.plan import Plan

__all__ = ["Plan", "compile_plan"]
