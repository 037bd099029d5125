#!/usr/bin/env bash
# The job of launch/gke.yaml: `bash launch/gke.sh [--dry-run] start|logs|stop`. `start` again resumes; `stop` saves first.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/dry_run.sh
logs=${LOGS:-runs/gke}

case ${1:-} in
start)
  run kubectl delete job cion --ignore-not-found --wait
  run kubectl apply --filename=launch/gke.yaml
  ;;
logs)
  run mkdir -p "$logs"
  if [ -n "$dry_run" ]; then pods=pod/cion-0-xxxxx; else pods=$(kubectl get pods --selector=job-name=cion --output=name); fi
  for pod in $pods; do
    echo "+ kubectl logs $pod >$logs/${pod#pod/}.log"
    [ -n "$dry_run" ] || kubectl logs "$pod" >"$logs/${pod#pod/}.log"
  done
  ;;
stop) run kubectl delete job cion --wait ;;
*)
  echo "usage: bash launch/gke.sh [--dry-run] start|logs|stop" >&2
  exit 2
  ;;
esac
