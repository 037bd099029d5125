"""The machine-readable description of a data set: what it names is there, and MLCommons' own validator takes it."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cion_jax.common.images import encode_jpeg
from cion_jax.data import records
from data_prep.output import croissant, shards
from data_prep.output.provenance import images_at
from tests.data_prep import small_run

VALIDATE = """
import json, sys
import mlcroissant
data = mlcroissant.Dataset(jsonld=sys.argv[1])
if data.metadata.ctx.issues.errors:
    sys.exit(str(data.metadata.ctx.issues.errors))
rows = [row for _, row in zip(range(3), data.records("images"))]
print(json.dumps([sorted(rows[0]), len(rows), [str(row["images/key"]) for row in rows]]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The small run, written."""
    place, run = tmp_path_factory.mktemp("people"), small_run.run()
    selected = np.flatnonzero(run.images["selected"].to_numpy())
    identities = run.images["identity"].take(selected).to_numpy()
    shards.write(
        place,
        images_at(run.images, selected),
        identities,
        lambda _: encode_jpeg(np.zeros((8, 4, 3), np.uint8)),
        run.images,
    )
    croissant.write(place, run)
    return place


def test_files_are_there(folder):
    said = json.loads((folder / records.CROISSANT_FILE).read_text())
    assert said["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert said["description"] == "7 images of 2 people, found by progressive multi-level denoising."
    assert "do not make people anonymous" in said["rai:personalSensitiveInformation"]
    files = {part["@id"]: part for part in said["distribution"]}
    for name in ("provenance.parquet", "index.npz"):
        content = (folder / name).read_bytes()
        assert files[name]["sha256"] == hashlib.sha256(content).hexdigest()
        assert files[name]["contentSize"] == f"{len(content)} B"
    assert [*folder.glob(files["records"]["includes"])]


def test_columns_are_those_of_the_table(folder):
    (images,) = json.loads((folder / records.CROISSANT_FILE).read_text())["recordSet"]
    columns = pq.read_schema(folder / records.PROVENANCE_FILE).names
    kinds = {field["source"]["extract"]["column"]: field["dataType"] for field in images["field"]}
    assert set(kinds) <= set(columns)
    assert (kinds["key"], kinds["identity"], kinds["selected"]) == ("sc:Text", "sc:Integer", "sc:Boolean")
    assert kinds["confidence"] == "sc:Float"


@pytest.mark.slow
def test_mlcommons_validator_takes_it_and_reads_it(folder):
    """With the real package, here or in the environment that CION_TORCH_ENV names."""
    elsewhere = Path(os.environ.get("CION_TORCH_ENV", "")) / "bin/python"
    python = str(elsewhere) if elsewhere.is_file() else sys.executable
    if subprocess.run([python, "-c", "import mlcroissant"], capture_output=True).returncode:
        pytest.skip("mlcroissant is not installed; pip install mlcroissant, or name its environment by CION_TORCH_ENV")
    command = [python, "-W", "ignore", "-c", VALIDATE, str(folder / records.CROISSANT_FILE)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    fields, count, keys = json.loads(done.stdout.splitlines()[-1])
    assert {"images/key", "images/identity", "images/selected"} <= set(fields)
    assert (count, "hall/1/a" in keys[0]) == (3, True)
    assert "Traceback" not in done.stderr
