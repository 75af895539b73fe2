#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
#   sbatch scripts/fleet/slurm-array.sh FOLDER [OPTION of tce-bench run...]
#
# One run of tce-bench for each task of a job array, with the same settings, on whichever nodes Slurm
# picks; FOLDER is on a file system that all nodes share, and tce-bench is in PATH there. The results are
# FOLDER/JOB-TASK.json, to be merged when all have ended: slurm-submit does both.
#
# A real back end locks memory: Slurm has to let it (in slurm.conf PropagateResourceLimitsExcept=MEMLOCK,
# and LimitMEMLOCK=infinity of slurmd's unit). Without one the software PHB is measured, and says so.
#
#SBATCH --job-name=tce-bench
#SBATCH --array=0-7
#SBATCH --ntasks=1
# A node for each task alone: times beside other people's jobs say little.
#SBATCH --exclusive
#SBATCH --output=tce-bench-%A_%a.log
set -euo pipefail

folder=${1:?usage: sbatch scripts/fleet/slurm-array.sh FOLDER [OPTION...]}
shift
# The label stays with the run in the merged result. The seed is the same for all: other seeds would be
# other work, which merge refuses.
tce-bench run "$@" --quiet --label "$SLURMD_NODENAME/$SLURM_ARRAY_TASK_ID" \
    --json "$folder/$SLURM_ARRAY_JOB_ID-$SLURM_ARRAY_TASK_ID.json"
