"""Spec + run facts -> a frozen, hashable plan, and the table that shows it."""

from trace_dsl.plan.compile import compile_plan
from trace_dsl.plan.plan import Plan

__all__ = ["Plan", "compile_plan"]
