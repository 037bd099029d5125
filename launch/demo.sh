#!/usr/bin/env bash
# The whole road on a synthetic street, on two cores in under 15 minutes. Every command is shown and can be copied.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/venv.sh
export JAX_PLATFORMS=cpu TF_CPP_MIN_LOG_LEVEL=3
out=runs/demo
rm -rf "$out"

run() {
  echo
  echo "+ .venv/bin/python $*"
  .venv/bin/python "$@"
}

run -m data_prep.synthetic.street --output=$out/street --people=120 --videos=16 --seed=0
run -m data_prep --source=mot --input=$out/street/videos --embedder=color --output=$out/dataset \
  --config.mot.first_frame=1  # the street counts frames from 1; where texts do not show it, it has to be said
run -m cion_jax.evaluate --checkpoint=random:resnet18_ibn@64x32 --benchmark=market1501 \
  --data=$out/street/benchmark --output=$out/before.json
run -m cion_jax.train --config=configs/demo.py --workdir=$out/run --config.data.path=$out/dataset
run -m cion_jax.evaluate --checkpoint=$out/run --benchmark=market1501 \
  --data=$out/street/benchmark --output=$out/after.json
run launch/demo_table.py $out
