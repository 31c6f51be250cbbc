"""The training loop: collect rollouts, lower the plan, run the routed loss on Megatron, write down what happened."""
