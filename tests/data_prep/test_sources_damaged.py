"""Damaged texts and lists: whatever bytes they hold, rows are read or set aside, or the file is refused."""

import json
import pickle
import random

import pytest

from data_prep import sources
from data_prep.config import MotConfig
from data_prep.sources import _avi, _formats
from data_prep.types import SourceError
from tests.data_prep.clips import line, pictures, text, video

CORNERS = "100 20 120 70"
TEXTS = {
    "mot.txt": "".join(f"{line(n, t)}\n" for n in range(1, 7) for t in (1, 2)),
    "header.csv": "frame,id,x1,y1,x2,y2,class\n" + "".join(f"{n},1,100,20,120,70,person\n" for n in range(1, 7)),
    "kitti.txt": "".join(f"{n} 1 Pedestrian 0 0 -1.5 {CORNERS} 1 1 1 1 1 1 0\n" for n in range(6)),
    "cvat.xml": '<annotations><track id="1" label="person">'
    + "".join(f'<box frame="{n}" outside="0" xtl="100" ytl="20" xbr="120" ybr="70"/>' for n in range(6))
    + "</track></annotations>",
    "seqinfo.ini": "[Sequence]\nimDir=img1\nimExt=.png\nseqLength=6\nframeRate=25\n",
    "list.json": json.dumps([{"file_path": f"a/{n}.jpg", "id": n} for n in range(6)]),
    "list.jsonl": "\n".join(json.dumps({"file_path": f"a/{n}.jpg", "id": n}) for n in range(6)),
    "list.csv": "file_path,id\n" + "".join(f"a/{n}.jpg,{n}\n" for n in range(6)),
}
RUBBISH = [
    b"\0",
    b"\xff\xfe",
    b"1e999",
    b"-1",
    b"nan",
    b"9" * 400,
    b",",
    b";",
    b" ",
    b"\n",
    b'"',
    b"[",
    b"{",
    b"<",
    b"&",
    b"\xe2\x80",
]


def mutated(data, seed):
    """Bytes with one to three accidents: a flip, something inserted, a piece lost, doubled or cut off."""
    rng, data = random.Random(seed), bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        kind = rng.randrange(5)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at:at] = rng.choice(RUBBISH)
        elif kind == 2:
            del data[at : min(end, at + 20)]
        elif kind == 3:
            data[at:at] = data[at:end]
        else:
            del data[end:]
    return bytes(data)


@pytest.mark.parametrize("name", TEXTS)
def test_no_accident_is_a_traceback(tmp_path, name):
    pictures(tmp_path / "a" / "img1")
    text(tmp_path / "a" / "tracks.txt", [line(n) for n in range(1, 7)])
    path, said = tmp_path / "a" / name, []
    for seed in range(100):
        path.write_bytes(mutated(TEXTS[name].encode(), seed))
        try:
            if name.startswith("list"):
                source = sources.open("annotations", path)
            elif name == "seqinfo.ini":
                source = sources.open("mot", tmp_path)
            else:
                (tmp_path / "a" / "tracks.txt").unlink(missing_ok=True)
                assert all(row.track >= -1 for row in _formats.load(path).rows)
                source = sources.open("mot", tmp_path, tracks=name)
            for video in source.videos():
                source.examine(video)
                source.read(video)
        except SourceError as error:
            said.append(str(error))
    assert all(any(word in words for word in ("expected", "--config", "there is no")) for words in said)


def test_no_accident_of_a_pickle_is_a_traceback(tmp_path):
    (tmp_path / "lmdb").mkdir()
    (tmp_path / "lmdb" / "data.mdb").touch()
    said = []
    data = pickle.dumps({"keys": [f"00_00_0001_{n:08d}" for n in range(9)], "pids": list(range(9))})
    for seed in range(100):
        (tmp_path / "keys.pkl").write_bytes(mutated(data, seed))
        try:
            assert all(isinstance(video, str) for video in sources.open("luperson", tmp_path).videos())
        except SourceError as error:
            said.append(str(error))
    assert said
    assert all("keys" in words for words in said)


def test_an_avi_that_loses_frames_in_the_middle_is_refused(tmp_path):
    """The decoder finds the next frame behind the damage, and counts on: all further crops would be of other frames."""
    path = video(tmp_path / "a" / "v.avi", frames=12)
    text(tmp_path / "a" / "tracks.txt", [line(n) for n in range(1, 13)])
    whole = path.read_bytes()
    assert _avi.broken(path) is None
    chunks = [at for at in range(len(whole) - 4) if whole[at : at + 4] == b"00dc"]
    for at in (chunks[5], chunks[5] + 5):  # a name; a length
        path.write_bytes(whole[:at] + b"\xff\xff" + whole[at + 2 :])
        (problem,) = sources.open("mot", tmp_path, settings=MotConfig()).examine("a").problems
        assert "does not count the frames that it lost" in problem
    path.write_bytes(whole[: chunks[8]])  # cut short: the last frames are not there
    assert _avi.broken(path) is None
