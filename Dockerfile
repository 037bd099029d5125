# An image of this checkout with its .venv: `docker build --tag=cion-jax --build-arg=CION_EXTRA=tpu .`
# CION_EXTRA: tpu, cuda12, cuda13, or nothing for CPUs. `launch/gke.yaml` runs it.
FROM python:3.11-slim-bookworm
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG CION_EXTRA=""
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
WORKDIR /cion-jax
COPY . .
RUN set -eu && . launch/venv.sh
ENTRYPOINT [".venv/bin/python", "-m", "cion_jax.train"]
CMD ["--help"]
