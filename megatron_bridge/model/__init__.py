"""The policy: a Hugging Face configuration, the megatron-core model of it, and the weights both ways."""
