"""The routed loss: pure functions over tensors, process groups are arguments."""

from megatron_bridge.losses.results import RoutedLoss, TokenStatistics
from megatron_bridge.losses.routed_linear import routed_linear_loss
from megatron_bridge.losses.teacher import TeacherHidden

__all__ = ["RoutedLoss", "TeacherHidden", "TokenStatistics", "routed_linear_loss"]
