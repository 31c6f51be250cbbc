"""What holds for every token a run can meet, by going through all cases.

A case is which labels a token carries, which rollouts it stands in, and what predicates can tell apart (see
`checks.outcomes`). Comparisons of different formulas count as independent, so what is proved is true, and a
counterexample with two related comparisons in it (`gap > 1` and not `gap > 0`) may be one that no run can meet.
"""

from trace_dsl.prove.cases import Proof
from trace_dsl.prove.coverage import Counterexample, covers, disjoint
from trace_dsl.prove.implication import Untrained, implies

__all__ = ["Counterexample", "Proof", "Untrained", "covers", "disjoint", "implies"]
