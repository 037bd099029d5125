#!/usr/bin/env bash
# The documentation: `bash launch/docs.sh` builds it into site/, strictly; `bash launch/docs.sh serve` shows it while one writes.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/venv.sh
export JAX_PLATFORMS=cpu NO_MKDOCS_2_WARNING=1
verb=${1:-build}
[ $# = 0 ] || shift
exec .venv/bin/python -m mkdocs "$verb" --strict "$@"
