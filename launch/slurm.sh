#!/usr/bin/env bash
# Train under Slurm, on one machine or several, one task per GPU; every setting comes from the recipe and the flags:
#   sbatch --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 launch/slurm.sh RECIPE [flags of `tinyworld train`]
# Preempted or out of time, the run saves, the job is put back into the queue, and the next one goes on with the same run.
#SBATCH --job-name=tinyworld
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@180
set -u

# Wait for process $1 and return its exit code. A SIGTERM is answered once, with the command $2.
await() {
  local code told=
  # shellcheck disable=SC2064  # $2 is meant as it is now
  trap "told=1; trap '' TERM; $2" TERM
  wait "$1"
  code=$?
  if [ -n "$told" ]; then # the signal ended the first wait, not the process
    wait "$1"
    code=$?
  fi
  return "$code"
}

# What the supervisor starts: the tasks. srun would end them at a SIGTERM; scancel gives it to them, so that they save.
if [ "${1:-}" = --tasks ]; then
  shift
  # shellcheck disable=SC2016  # each task expands these for itself
  srun --wait=120 bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS exec "$@"' task "$@" &
  await $! "scancel --signal=TERM $SLURM_JOB_ID"
  exit
fi

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
case " $* " in
*" --run_name"* | *" --run.run_name"*) ;;
*) set -- "$@" --run_name "slurm-$SLURM_JOB_ID" ;; # the same after every requeue
esac
tinyworld supervise "$@" --launcher "bash $0 --tasks" &
supervisor=$!
await "$supervisor" "kill -TERM $supervisor"
code=$?
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
