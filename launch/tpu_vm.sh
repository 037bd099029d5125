#!/usr/bin/env bash
# Training on a Cloud TPU slice: `bash launch/tpu_vm.sh [--dry-run] start|resume|logs|stop|delete --workdir=W ...`.
#
#   export TPU_NAME=cion TPU_ZONE=us-west4-a TPU_TYPE=v5litepod-16
#   bash launch/tpu_vm.sh start --config=configs/vit_b.py --workdir=/mnt/shared/run --config.data.path=/mnt/shared/data
#   bash launch/tpu_vm.sh logs --workdir=/mnt/shared/run
#
# To adapt: the three names above; MOUNT, a command that mounts on every host the file system that holds data and workdir
# (Filestore, or gcsfuse on a bucket with hierarchical namespace). JAX asks the slice who is who. `start` creates the
# slice if there is none, copies this checkout and trains; `resume` trains again, `stop` saves and leaves.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/dry_run.sh
name=${TPU_NAME:-cion} zone=${TPU_ZONE:-us-west4-a} type=${TPU_TYPE:-v5litepod-16}
version=${TPU_VERSION:-v2-alpha-tpuv5-lite} mount=${MOUNT:-true}

on_all() {
  run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

create() {
  if [ -n "$dry_run" ] || ! gcloud compute tpus tpu-vm describe "$name" --zone="$zone" >/dev/null 2>&1; then
    run gcloud compute tpus tpu-vm create "$name" --zone="$zone" --accelerator-type="$type" --version="$version" \
      ${TPU_SPOT:+--spot}
  fi
}

install() {
  run git archive --output=/tmp/cion.tar.gz HEAD
  run gcloud compute tpus tpu-vm scp /tmp/cion.tar.gz "$name:/tmp/" --zone="$zone" --worker=all
  on_all "sudo apt-get install -qq -y python3.11 python3.11-venv && $mount"
  on_all "mkdir -p ~/cion ~/logs && tar -xzf /tmp/cion.tar.gz -C ~/cion && cd ~/cion && PYTHON=python3.11 && CION_EXTRA=tpu && . launch/venv.sh"
}

# Starts the training on every host and returns; it goes on when this machine is switched off.
train() {
  local quoted
  quoted=$(printf ' %q' "$@")
  on_all "cd ~/cion && { nohup .venv/bin/python -m cion_jax.train$quoted >>~/logs/\$(hostname).log 2>&1 </dev/null & echo \$! >~/process; }"
}

verb=${1:-}
[ $# = 0 ] || shift
case $verb in
start)
  create
  install
  train "$@"
  ;;
resume) train "$@" ;;
logs)
  run mkdir -p "runs/$name"
  run gcloud compute tpus tpu-vm scp "$name:logs/*.log" "runs/$name/" --zone="$zone" --worker=all
  ;;
stop) on_all "kill -TERM \$(cat ~/process)" ;;
delete) run gcloud compute tpus tpu-vm delete "$name" --zone="$zone" --quiet ;;
*)
  echo "usage: bash launch/tpu_vm.sh [--dry-run] start|resume|logs|stop|delete --config=FILE --workdir=W [...]" >&2
  exit 2
  ;;
esac
