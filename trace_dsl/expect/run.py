"""Testing the cases of a file one by one. Needs torch."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.errors import LoweringError
from trace_dsl.expect.batch import check_cases
from trace_dsl.expect.compare import Outcome, Refused, compare
from trace_dsl.expect.evaluate import evaluate
from trace_dsl.expect.file import ExpectationFile
from trace_dsl.facts import run_of_length
from trace_dsl.plan import compile_plan


def run_cases(file: ExpectationFile) -> tuple[Outcome | Refused, ...]:
    """What came of every case, in their order. Raises ExpectationError for what a file says and its spec does not know,
    SpecError for a spec that has no plan.
    """
    plan = compile_plan(file.spec, run_of_length(file.expectations.steps))
    check_cases(file, plan)

    def outcomes() -> Iterator[Outcome | Refused]:
        for case in file.expectations.cases:
            try:
                found = evaluate(file.spec, plan, case, file.expectations.batch_of(case))
            except LoweringError as error:
                yield Refused(case=case, reason=str(error))
                continue
            yield Outcome(case=case, found=found, mismatches=compare(case, found, file.expectations.tolerance))

    return tuple(outcomes())
