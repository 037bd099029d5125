# shellcheck shell=bash
# Makes .venv with the locked requirements, or reuses it. Sourced by the other scripts from the checkout's root.
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "error: $python is $("$python" --version 2>&1), Python 3.11 or newer is needed; name one as PYTHON=python3.12" >&2
  exit 2
fi
want=$(cksum <requirements.txt; "$python" --version)
if [ "$(cat .venv/installed 2>/dev/null)" != "$want" ]; then
  echo "+ $python -m venv .venv && .venv/bin/pip install -r requirements.txt" >&2
  if ! "$python" -m venv --clear .venv; then
    echo "error: $python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 2
  fi
  .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
  echo "$want" >.venv/installed
fi
