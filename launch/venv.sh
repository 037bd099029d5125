# shellcheck shell=bash
# Makes .venv with the locked requirements and this package, or reuses it. Sourced by the other scripts from the
# checkout's root. CION_EXTRA=cuda12 (cuda13, tpu; empty: CPU alone) adds JAX for that machine; a .venv keeps its kind.
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "error: $python is $("$python" --version 2>&1), Python 3.11 or newer is needed; name one as PYTHON=python3.12" >&2
  exit 2
fi
extra=${CION_EXTRA-$(cat .venv/extra 2>/dev/null || true)}
case $extra in
'' | cuda12 | cuda13 | tpu) ;;
*)
  echo "error: there is no CION_EXTRA=$extra; give cuda12, cuda13, tpu, or nothing for the CPU" >&2
  exit 2
  ;;
esac
want=$(cksum <requirements.txt; cksum <pyproject.toml; "$python" --version; echo "$extra")
if [ "$(cat .venv/installed 2>/dev/null)" != "$want" ]; then
  echo "+ $python -m venv .venv && .venv/bin/pip install -r requirements.txt -e .${extra:+[$extra]}" >&2
  if ! "$python" -m venv --clear .venv; then
    echo "error: $python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 2
  fi
  jax=$(sed -n 's/^jax==\([0-9.]*\).*/\1/p' requirements.txt)
  .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt ${extra:+"jax[$extra]==$jax"}
  .venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
  echo "$extra" >.venv/extra
  echo "$want" >.venv/installed
fi
