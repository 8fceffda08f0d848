#!/bin/bash
# Training on several machines under SLURM, a process for each GPU. What follows the script's name
# goes to the recipe:
#
#     sbatch recipes/ljspeech/slurm.sh --data data/LJSpeech-1.1 --max_time 23h
#
# Submit it from the repository. Machines, GPUs and partition are your site's: change them here, or give
# sbatch --nodes 4. The folder of the run and the data must be on a file system that all machines share.
#SBATCH --job-name=vocoder
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
# SIGTERM to the processes two minutes before the end: they save, and the same command goes on from there.
#SBATCH --signal=TERM@120
#SBATCH --output=slurm-%j.log
set -euo pipefail

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# The tasks' number is Lightning's number of processes: it takes addresses and ranks from SLURM's variables.
srun python recipes/ljspeech/train.py "$@" \
    --trainer.num_nodes "$SLURM_NNODES" --trainer.devices "$SLURM_NTASKS_PER_NODE" --trainer.strategy ddp
