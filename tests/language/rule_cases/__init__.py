"""For every rule: specs in which it fires, and near misses."""

from tests.language.rule_cases.case import Case
from tests.language.rule_cases.losses import LOSSES
from tests.language.rule_cases.statements import STATEMENTS

CASES = (*STATEMENTS, *LOSSES)

__all__ = ["CASES", "Case"]
