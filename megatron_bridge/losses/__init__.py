"""The routed loss: pure functions over tensors, process groups are arguments."""

from megatron_bridge.losses.results import RoutedLoss, TokenStatistics
from megatron_bridge.losses.routed_linear import routed_linear_loss
from megatron_bridge.losses.routed_logits import routed_logits_loss
from megatron_bridge.losses.teacher import TeacherHidden, TeacherLogits

__all__ = [
    "RoutedLoss",
    "TeacherHidden",
    "TeacherLogits",
    "TokenStatistics",
    "routed_linear_loss",
    "routed_logits_loss",
]
