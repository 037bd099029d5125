#!/usr/bin/env bash
# Training on a Slurm cluster, one task per GPU: `bash launch/slurm.sh [--dry-run] start|logs|stop --workdir=W ...`.
#
#   NODES=4 GPUS=8 TIME=24:00:00 bash launch/slurm.sh start --config=configs/vit_b.py --workdir=W --config.data.path=D
#   bash launch/slurm.sh logs --workdir=W
#
# To adapt: the first lines below, and a checkout with .venv, D and W on a file system that all nodes see. Slurm says who
# is who; nothing else is set. `start` again resumes. Two minutes before the time is up, or when it is preempted, the run
# saves, leaves with status 75 and queues itself again; so it does where a node was lost (76).
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/dry_run.sh
nodes=${NODES:-1} gpus=${GPUS:-8} time=${TIME:-24:00:00} cpus=${CPUS_PER_GPU:-12} name=${NAME:-cion}

# What the batch job does on its first node. A process that was killed leaves another status than the rest, 76.
job() {
  local status=0
  run srun --kill-on-bad-exit=0 --open-mode=append --output="$logs/process_%t.log" \
    .venv/bin/python -m cion_jax.train "$@" || status=$?
  if [ "$status" -gt 2 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
    run scontrol requeue "${SLURM_JOB_ID:-}"
  fi
  return "$status"
}

verb=${1:-}
workdir=
for argument in "$@"; do
  case $argument in --workdir=*) workdir=${argument#*=} ;; esac
done
if [ -z "$workdir" ]; then
  echo "usage: bash launch/slurm.sh [--dry-run] start|logs|stop --workdir=W [--config=FILE --config.a.b=c ...]" >&2
  exit 2
fi
shift
logs=$workdir/logs

case $verb in
start)
  run mkdir -p "$logs"
  run sbatch --job-name="$name" --nodes="$nodes" --ntasks-per-node="$gpus" --gpus-per-node="$gpus" \
    --cpus-per-task="$cpus" --time="$time" --signal=TERM@120 --requeue --open-mode=append \
    --chdir="$PWD" --output="$logs/%j.log" --wrap="bash launch/slurm.sh job$(printf ' %q' "$@")"
  ;;
job) job "$@" ;;
logs) run tail -n 40 -F "$logs"/*.log ;;
stop) run scancel --signal=TERM --name="$name" ;;
*)
  echo "error: no verb $verb; expected start, logs or stop" >&2
  exit 2
  ;;
esac
