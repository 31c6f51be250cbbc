"""The routed loss: pure functions over tensors, process groups are arguments."""

from megatron_bridge.losses.routed_linear import RoutedLoss, TeacherHidden, routed_linear_loss

__all__ = ["RoutedLoss", "TeacherHidden", "routed_linear_loss"]
