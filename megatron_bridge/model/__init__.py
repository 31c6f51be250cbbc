"""The policy: a Hugging Face configuration, the megatron-core model built from it, and the weights both
ways."""
