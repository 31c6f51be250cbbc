"""The routed loss: pure functions over tensors, process groups are arguments."""

from megatron_bridge.losses.routed_linear import RoutedLoss, routed_linear_loss
from megatron_bridge.losses.teacher import TeacherHidden

__all__ = ["RoutedLoss", "TeacherHidden", "routed_linear_loss"]
