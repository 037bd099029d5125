"""What the doctor says, and that a run asks it before anything is cropped."""

import os
import struct

import pytest

import data_prep
from cion_jax.common.errors import UserError
from data_prep import doctor, sources
from data_prep.config import Config, MotConfig
from data_prep.sources import _findings, _formats, _opened
from data_prep.sources.frames import from_video, scan
from data_prep.types import SourceError
from tests.data_prep.clips import line, pictures, seen, text, video


def mot(root, **settings):
    return sources.open("mot", root, settings=MotConfig(**settings))


def test_what_is_as_usual_is_said_in_no_word(tmp_path, capsys):
    text(pictures(tmp_path / "a" / "img1").parent / "gt.txt", [line(n) for n in range(1, 7)])
    doctor.check(mot(tmp_path))
    assert capsys.readouterr().err == ""


def test_what_is_odd_is_said_once_with_its_sequences(tmp_path, capsys):
    for name in "abc":
        text(video(tmp_path / f"{name}.avi").with_suffix(".txt"), [line(n) for n in range(6)] + [line(2, -1)])
    doctor.check(mot(tmp_path))
    said = capsys.readouterr().err
    assert "a, b, c: the text counts its frames from 0" in said
    assert "a, b, c: 1 of 7 boxes have no id (-1)" in said
    assert "a, b, c have identical pictures" in said


def test_doubt_is_refused_before_anything_is_cropped(tmp_path):
    text(pictures(tmp_path / "a" / "img1", range(6)).parent / "tracks.txt", [line(n) for n in range(1, 6)])
    with pytest.raises(SourceError, match=r"beyond doubt:\na: frames may be counted from 0 .*first_frame=0"):
        doctor.check(mot(tmp_path))
    doctor.check(mot(tmp_path, first_frame=0))


def test_nothing_to_read_quotes_the_first_of_each_reason(tmp_path):
    text(pictures(tmp_path / "a" / "img1").parent / "tracks.txt", ["1;2", "3;4"])
    pictures(tmp_path / "b" / "img1")
    (tmp_path / "c").mkdir()
    with pytest.raises(SourceError, match="nothing in the input can be read") as error:
        doctor.check(mot(tmp_path))
    for words in ("got '1;2', expected frame,id,left", "no track text: got none of tracks.txt", "1 x no sequence"):
        assert words in str(error.value)


def test_a_run_looks_for_some_seconds_only(tmp_path, capsys):
    text(pictures(tmp_path / "a" / "img1").parent / "tracks.txt", [line(n) for n in range(1, 7)])
    doctor.check(mot(tmp_path), seconds=-1)
    assert "looked at 0 of 1 videos; python -m data_prep.doctor looks at all" in capsys.readouterr().err


def test_settings_reach_their_source():
    config = Config(tracks="t.txt", mot=MotConfig(box="xyxy"))
    assert sources.options("mot", config) == {"tracks": "t.txt", "settings": MotConfig(box="xyxy")}
    assert sources.options("tracklets", Config()) == {}


def chunks(path):
    """The video's bytes, and where its twelve frames begin."""
    data, at = bytearray(path.read_bytes()), []
    i = data.find(b"movi")
    while (i := data.find(b"00dc", i + 1)) > 0 and len(at) < 12:
        at.append(i)
    return data, at


def test_a_frame_that_does_not_decode_costs_itself(tmp_path):
    path = video(tmp_path / "v.avi", 12)
    data, at = chunks(path)
    size = struct.unpack("<I", data[at[4] + 4 : at[4] + 8])[0]
    data[at[4] + 8 : at[4] + 8 + size] = bytes(size)
    path.write_bytes(data)
    found = {number: frame for number, frame in from_video(path, range(1, 14))}
    assert [number for number in found if hasattr(found[number], "mean")] == [1, 2, 3, 4, *range(6, 13)]
    assert all(round(found[number].mean() / 20) == number for number in (4, 6, 12))
    assert scan(path) == (12, (5,), (), (), 12)


def test_an_empty_frame_of_an_avi_is_told(tmp_path):
    path = video(tmp_path / "v.avi", 12)
    data, at = chunks(path)
    path.write_bytes(data[: at[4] + 4] + struct.pack("<I", 0) + data[at[5] :])
    assert scan(path, listen=True)[:4] == (11, (), (5,), ())
    text(path.with_suffix(".txt"), [line(n) for n in range(1, 12)])
    assert "late from there on" in mot(tmp_path).watch("v")[0]


def test_a_frame_that_is_lost_in_the_middle_is_told(tmp_path):
    path = video(tmp_path / "v.avi", 12)
    data, at = chunks(path)
    data[at[4]] ^= 0x10  # the tag of a chunk: FFmpeg passes over it in silence
    path.write_bytes(data)
    text(path.with_suffix(".txt"), [line(n) for n in range(1, 13)])
    assert "states 12 frames, 11 can be read" in mot(tmp_path).watch("v")[0]


def test_a_header_that_states_too_few_frames_is_not_believed(tmp_path):
    path = video(tmp_path / "a" / "v.avi", 10)
    data = bytearray(path.read_bytes())
    for tag, offset in ((b"avih", 16), (b"strh", 32)):
        struct.pack_into("<I", data, data.index(tag) + 8 + offset, 7)
    path.write_bytes(data)
    text(tmp_path / "a" / "tracks.txt", [line(n) for n in range(1, 11)])
    finding = mot(tmp_path).examine("a")
    assert finding.problems == ()
    assert finding.cells["pictures"] == "1-10"


def test_a_video_without_frames_is_told_and_costs_itself(tmp_path):
    text(pictures(tmp_path / "b" / "img1").parent / "tracks.txt", [line(n) for n in range(1, 7)])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "v.mp4").write_bytes(b"no video")
    text(tmp_path / "a" / "tracks.txt", [line(n) for n in range(1, 7)])
    source = mot(tmp_path)
    doctor.check(source)
    assert "v.mp4: no frame decodes" in source.examine("a").notes[0]


def test_a_video_that_says_it_is_turned_is_told(tmp_path, monkeypatch):
    text(video(tmp_path / "a" / "v.avi").parent / "tracks.txt", [line(n) for n in range(1, 7)])
    monkeypatch.setattr(_findings, "turn", lambda path: 90.0)
    assert "turned by 90 degrees" in mot(tmp_path).examine("a").notes[0]


def test_pipes_do_not_hang(tmp_path):
    for name in ("tracks.txt", "seqinfo.ini", "labels.txt", "v.avi"):
        (tmp_path / "a").mkdir(exist_ok=True)
        os.mkfifo(tmp_path / "a" / name)
    text(pictures(tmp_path / "b" / "img1").parent / "tracks.txt", [line(n) for n in range(1, 8)])
    os.mkfifo(tmp_path / "b" / "img1" / "000007.png")
    doctor.check(mot(tmp_path))
    assert seen(tmp_path) == {"a": [], "b": [("1", n) for n in range(1, 7)]}


def test_look_is_the_doctor_in_python(tmp_path, capsys):
    text(pictures(tmp_path / "a" / "img1").parent / "tracks.txt", [line(n) for n in range(1, 8)])
    data_prep.look("mot", tmp_path)
    assert "what will be done" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no config\.sigma_cts; did you mean 'sigma_cst'"):
        data_prep.look("mot", tmp_path, sigma_cts=1)
    with pytest.raises(UserError, match="no such input"):
        data_prep.look("mot", tmp_path / "b")


def test_a_text_is_read_once_and_again_when_it_has_changed(tmp_path, monkeypatch):
    loaded = []
    load = _formats.load
    monkeypatch.setattr(_formats, "load", lambda path, prefix="": loaded.append(path) or load(path, prefix))
    video(tmp_path / "a" / "v.avi")
    text(tmp_path / "a" / "tracks.txt", [line(number) for number in range(6)])
    source = sources.open("mot", tmp_path, settings=MotConfig())
    source.examine("a")
    again = sources.open("mot", tmp_path, settings=MotConfig())  # as a worker does
    assert len(again.read("a")[0]) == 6
    assert len(loaded) == 1
    text(tmp_path / "a" / "tracks.txt", [line(number, track=2) for number in range(6)])  # of the same size
    assert {image.tracklet for image in again.read("a")[0]} == {"2"}


def test_what_is_kept_of_texts_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(_opened, "_KEPT", 10)
    for name in "abc":
        video(tmp_path / name / "v.avi")
        text(tmp_path / name / "tracks.txt", [line(number) for number in range(6)])
    source = sources.open("mot", tmp_path, settings=MotConfig())
    assert [source.examine(name).problems for name in "abc"] == [(), (), ()]
    assert sum(len(each.table.rows) for each in _opened._RECENT.values()) <= 10


def test_ids_that_are_no_tracks_are_refused(tmp_path):
    # Two people of a frame have one id: a class or a confidence stands in its place.
    text(
        video(tmp_path / "a" / "v.avi").with_name("tracks.txt"),
        [line(n, box=box) for n in range(1, 7) for box in ((100, 20, 20, 50), (10, 20, 20, 50))],
    )
    (problem,) = mot(tmp_path).examine("a").problems
    assert "2 boxes have id 1, 6 of 12 rows are such" in problem
    with pytest.raises(SourceError, match="ids are no tracks"):
        mot(tmp_path).read("a")


def test_a_text_of_which_hardly_a_line_is_a_row_is_refused(tmp_path):
    # Seconds in place of frames: only one line in six is a whole number.
    text(video(tmp_path / "a" / "v.avi").with_name("tracks.txt"), [line(f"{n / 6:g}") for n in range(6)])
    (problem,) = mot(tmp_path).examine("a").problems
    assert "5 of 6 lines" in problem
    assert "a whole number was expected" in problem


def test_names_write_nothing_to_the_terminal(tmp_path, capsys):
    name = "[b]\x1b[31m"
    text(video(tmp_path / name / "v.avi").with_name("tracks.txt"), [line(n) for n in range(6)])
    doctor.tell(mot(tmp_path))
    doctor.check(mot(tmp_path))
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert r"[b]\x1b[31m" in said.out
