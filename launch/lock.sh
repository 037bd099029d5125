#!/usr/bin/env bash
# Resolves requirements.in into requirements.txt, for every Python from 3.11 on.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/venv.sh
.venv/bin/pip install --quiet uv
.venv/bin/uv pip compile requirements.in --output-file requirements.txt \
  --universal --python-version 3.11 --no-header --no-emit-index-url --quiet
