"""The data card of the small run."""

import re

import numpy as np
import pyarrow as pa
import tensorflow_datasets as tfds

from data_prep.output import dataset_card, shards
from data_prep.output.provenance import images_at
from tests.data_prep import small_run


def test_card_names_what_was_used_and_left():
    text = dataset_card.text(small_run.run())
    for line in (
        "7 person crops of 2 identities, found by progressive multi-level denoising",
        "| input | `/data/<people> \\| more` |",
        "| read | 9 images in 2 videos |",
        "| set aside | 4 unreadable image, 1 malformed line |",
        f"| extractor's SHA-256 | `{'ab' * 32}` |",
        "| single_video | 7 | 2 | 0.5 | 0.6250 | 0.6250 |",
        "Selected: 3 to 4 images per identity, 3.5 on average. Images not selected: 1 no identity, 1 identity full.",
        "| sigma_cst | 0.45 |",
        "| r_s | 1000 |",
        "| shared_neighbors | 0.375 |",
        "| seed | 3 |",
        "| `tracklet` | text |",
    ):
        assert line in text


def test_card_of_known_identities_promises_no_denoising():
    run = small_run.run(levels=[{"name": "input", "images": 9, "identities": 4}], embedder="")
    text = dataset_card.text(run)
    assert "as the source knows them" in text
    assert "Chains" not in text
    assert "Chains" in dataset_card.text(small_run.run(method="published", clustering=None))
    assert "| extractor | none |" in text
    assert "| input | 9 | 4 |" in text


def test_the_snippet_reads_the_folder(tmp_path, capsys):
    run = small_run.run()
    rows = np.flatnonzero(run.images["selected"].to_numpy())[:-1]  # the last one's picture is gone
    identities = run.images["identity"].take(pa.array(rows)).to_numpy()
    shards.write(tmp_path, images_at(run.images, rows), identities, run.jpeg_of, run.images)
    dataset_card.write(tmp_path, run)
    text = (tmp_path / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    exec(code.replace("FOLDER", str(tmp_path)), {})
    assert capsys.readouterr().out == "6 0 (40, 20, 3)\n"
    fields = set(re.findall(r"^\| `(\w+)` \| ", text, re.MULTILINE)) - {"index"}
    assert fields == set(tfds.builder_from_directory(tmp_path).info.features)
