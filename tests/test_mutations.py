"""What is kept, damaged 300 times in each format: never a traceback, a hang, much memory, or another content where the
format has a checksum."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import mutations
from tests.conftest import ROOT

MUTATIONS = 300
MEGABYTES = 1024


@pytest.mark.slow
def test_mutations(tmp_path, capsys):
    def study(name):
        command = [sys.executable, "-m", "tests.mutations", name, str(tmp_path / name), str(MUTATIONS)]
        (tmp_path / name).mkdir()
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    with ThreadPoolExecutor(2) as pool:
        rows = dict(zip(mutations.KINDS, pool.map(study, mutations.KINDS), strict=True))
    with capsys.disabled():
        print(f"\n{'':12} refused  same content  another  slowest  memory")
        for name, row in rows.items():
            counts = f"{row['refused']:7}  {row['same']:12}  {row['other']:7}"
            print(f"{name:12} {counts}  {row['slowest']:5.2f} s  {row['memory']:4.0f} MB")
    for name, row in rows.items():
        assert not row["wrong"], name
        assert row["escaped"] == 0, name
        assert row["slowest"] < mutations.SECONDS, name
        assert row["memory"] < MEGABYTES, name
        assert row["other"] == 0 or not mutations.KINDS[name].checksum, name
