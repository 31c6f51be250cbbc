"""Imported by the server that runs are forked from: all that a run imports, but W&B, which a fork cannot take back."""

from megatron_bridge.train import import_job

import_job(wandb=False)
