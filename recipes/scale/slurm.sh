#!/usr/bin/env bash
# A training on a Slurm cluster: one torchrun a node, which finds the others at the first node's address.
#     sbatch --nodes 8 --gpus-per-node 8 recipes/scale/slurm.sh RECIPE [KEY=VALUE ...]
# Two minutes before the time is up, or when the place is wanted for others, Slurm sends SIGTERM: it is passed on, the
# trainer finishes its step and writes a checkpoint, and the job queues again and goes on from there.
#SBATCH --job-name=unireel
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

recipe="${1:?usage: sbatch [--nodes N --gpus-per-node G] recipes/scale/slurm.sh RECIPE [KEY=VALUE ...]}"
shift
first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # else workers that are started again find the addresses of dead ones

stopped=""
trap 'stopped=1; kill -TERM "$running" 2>/dev/null || true' TERM
srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" --max-restarts "${RESTARTS:-3}" \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:${PORT:-29500}" \
    -m unireel.cli.main train "$recipe" "$@" &
running=$!
status=0
wait "$running" || status=$?
if [ -n "$stopped" ]; then
    wait "$running" || true # the first wait ended with the signal, not with the training
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$status"
