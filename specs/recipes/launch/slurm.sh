#!/bin/bash
# One run on the nodes of a Slurm job, a torchrun on each. The tree, the policy and `output` lie on a file system that
# all nodes share.
#   sbatch --nodes 8 specs/recipes/launch/slurm.sh specs/recipes/trace-qwen3-8b-8n8g-tp4-cp2.yaml
# What follows the run file goes to the trainer: settings, --resume, --overwrite.
#SBATCH --job-name=trace-dsl
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
set -euo pipefail

export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)

exec srun --kill-on-bad-exit=1 torchrun \
  --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "${GPUS_PER_NODE:-8}" \
  --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:${PORT:-29500}" \
  -m megatron_bridge.train "$@"
