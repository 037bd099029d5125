#!/usr/bin/env bash
# The tests: `bash launch/test.sh` runs the fast ones, `bash launch/test.sh --slow` all; other arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/venv.sh
tier='not slow'
if [ "${1:-}" = --slow ]; then
  tier='slow or not slow'
  shift
fi
export JAX_PLATFORMS=cpu PYTHONDONTWRITEBYTECODE=1
exec .venv/bin/python -m pytest -m "$tier" -n "${CION_TEST_WORKERS:-2}" --dist loadgroup --no-loadscope-reorder "$@"
