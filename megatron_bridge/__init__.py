"""The training side: rollouts, teachers, the routed loss and the Megatron loop that a plan drives."""
