"""What lies beside a file of features for searching: made again where it is damaged."""

import json

import numpy as np
import pytest

from cion_jax.reid import index


@pytest.mark.parametrize("damage", ["no keys", "fewer keys", "no array", "cut", "flipped", "other type"])
def test_damaged_files_are_made_again(tmp_path, damage):
    path, folder = tmp_path / "f.npz", tmp_path / "f.npz.index"
    np.savez(path, keys=["a", "b"], features=np.eye(2, dtype=np.float32))
    index.opened(path)
    about, rows = json.loads((folder / "index.json").read_text()), folder / "rows.npy"
    if damage in ("no keys", "fewer keys"):
        keys = {"keys": ["a"]} if damage == "fewer keys" else {}
        (folder / "index.json").write_text(json.dumps({"of": about["of"], **keys}))
    elif damage == "flipped":
        content = bytearray(rows.read_bytes())
        content[-1] ^= 1
        rows.write_bytes(content)
    elif damage == "other type":
        np.save(rows, np.eye(2))
    else:
        rows.write_bytes(rows.read_bytes()[:-1] if damage == "cut" else b"")
    found = index.opened(path)
    assert found.keys == ["a", "b"]
    np.testing.assert_array_equal(found.rows_ND, np.eye(2))
