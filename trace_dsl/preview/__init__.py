"""What a spec does to real rollouts: the loss, weight and advantage of every token at every step, without torch.

The language's meaning on a batch is `trace_dsl.lowering`, which is torch code. Here the same meaning is evaluated in
plain Python on what a file of rollouts tells; what it does not tell is unknown and stays so. Tests hold both equal.
"""
