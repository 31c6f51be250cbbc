"""Plan + batch + step -> fused mask-and-weight tensors. Needs torch; nothing that lint uses imports this package."""

from trace_dsl.lowering.batch import RolloutBatch, TokenSpan
from trace_dsl.lowering.fused import FusedRouting
from trace_dsl.lowering.lower import Lowered, lower

__all__ = ["FusedRouting", "Lowered", "RolloutBatch", "TokenSpan", "lower"]
