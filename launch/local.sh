#!/usr/bin/env bash
# N processes of one training run on this machine: `bash launch/local.sh [--dry-run] N --config=FILE --workdir=W ...`.
# What process I says goes to W/logs/process_I.log. Ctrl-C or SIGTERM saves and leaves; the same command resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/dry_run.sh
processes=${1:-}
workdir=
for argument in "$@"; do
  case $argument in --workdir=*) workdir=${argument#*=} ;; esac
done
if ! [[ $processes =~ ^[1-9][0-9]*$ ]] || [ -z "$workdir" ]; then
  echo "usage: bash launch/local.sh [--dry-run] N --config=FILE --workdir=W [--config.a.b=c ...]" >&2
  exit 2
fi
shift
free_port='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
port=${PORT:-$(.venv/bin/python -c "$free_port")}
logs=$workdir/logs
run mkdir -p "$logs"

started=()
for ((i = 0; i < processes; i++)); do
  place=("--coordinator=127.0.0.1:$port" "--processes=$processes" "--process=$i")
  show .venv/bin/python -m cion_jax.train "$@" "${place[@]}"
  if [ -z "$dry_run" ]; then
    # Not in this terminal's group: Ctrl-C comes through the trap below, once.
    setsid .venv/bin/python -m cion_jax.train "$@" "${place[@]}" >>"$logs/process_$i.log" 2>&1 &
    started+=($!)
  fi
done
[ -z "$dry_run" ] || exit 0

# The processes look after each other: where one ends badly the others end, too.
trap 'kill -TERM "${started[@]}" 2>/dev/null || true' INT TERM
status=0
for i in "${!started[@]}"; do
  code=0
  wait "${started[$i]}" || code=$?
  while kill -0 "${started[$i]}" 2>/dev/null; do # a signal came while waiting
    code=0
    wait "${started[$i]}" || code=$?
  done
  if [ "$code" != 0 ]; then
    echo "process $i ended with status $code: $(tail -n 1 "$logs/process_$i.log")" >&2
    # 76 only says that another process is gone: that one's status tells more.
    if [ "$status" = 0 ] || [ "$status" = 76 ]; then status=$code; fi
  fi
done
exit "$status"
