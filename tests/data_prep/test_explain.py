"""Explanations of a run whose every number is known by hand (`test_pipeline.STREET`)."""

import subprocess
import sys

import cv2
import numpy as np
import pyarrow as pa
import pytest

import data_prep
from cion_jax.common import contact_sheet
from cion_jax.common.errors import UserError
from data_prep import explain
from data_prep.output.dataset import Dataset, DatasetError, _nearest
from data_prep.output.report import page
from data_prep.pipeline import run
from tests.data_prep.painted import GREEN, RED, A, B, by_key, job, paint
from tests.data_prep.test_main import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    at = tmp_path_factory.mktemp("explained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "write", lambda folder, run: None)
        run.run(job(paint(at / "in"), at / "out"))
    return at / "out"


def told(folder, key):
    dataset = Dataset(folder)
    return list(explain.of_image(dataset.image(key), dataset.decided))


def test_an_image_that_moved(folder):
    _, source, level1, level2, level3, written = told(folder, f"{A}/t0/002.jpg")
    assert source.strip() == f"from: {A}/t0/002.jpg, video {A}, tracklet t0, frame 2"
    # Red and green are at right angles; JPEG changes the colors a little.
    assert level1.strip().startswith("level 1: left tracklet t0 in round 1, 1.0")
    assert level1.endswith("from the mean of the others (sigma_cst 0.200)")
    assert level2.strip() == "level 2: moved to tracklet t1, 0.000 away; joined no other tracklet of the video"
    assert level3.strip().endswith("0.000 from its centroid; joined no other video")
    assert written.strip().startswith("written: record ")


def test_images_that_stayed_joined_and_were_lost(folder):
    kept = told(folder, f"{B}/u0/000.jpg")
    assert kept[2].strip().startswith("level 1: stayed, 0.000 from")
    joined = "level 2: kept in tracklet u0; joined another tracklet of the video 0.000 away (sigma_drm 0.180)"
    assert kept[3].strip() == joined
    assert "joined what is 0.0" in kept[4]  # the red tracklet of the other video
    lost = told(folder, f"{A}/t1/002.jpg")
    assert lost[3].strip().startswith("level 2: discarded, the nearest other tracklet is 1.0")
    assert [line.strip() for line in lost[4:]] == ["level 3: no identity", "not written: no identity"]
    assert told(folder, f"{B}/u2/000.jpg")[2].strip() == "level 1: the only image of its tracklet"


def test_distances_are_of_what_was_joined(folder):
    rows = by_key(folder)
    assert rows[f"{B}/u0/000.jpg"]["level2_joined"] == pytest.approx(0, abs=1e-3)
    assert rows[f"{B}/u0/000.jpg"]["level3_joined"] == pytest.approx(0, abs=1e-3)
    assert rows[f"{B}/u1/000.jpg"]["level3_joined"] is None
    assert rows[f"{A}/t1/002.jpg"]["distance"] is None


def test_an_identity_lists_its_tracklets(folder):
    red = by_key(folder)[f"{A}/t0/000.jpg"]["identity"]
    first, *lines = explain.of_identity(red, Dataset(folder).identity(red))
    assert first == f"identity {red}: 6 images of 2 videos, 6 written"
    assert [line.split(":")[0].strip() for line in lines] == [f"[1] {A} / t0", f"[2] {B} / u0", f"[3] {B} / u2"]
    green = by_key(folder)[f"{A}/t1/000.jpg"]["identity"]
    assert "4 images, 1 image from other" in list(explain.of_identity(green, Dataset(folder).identity(green)))[
        1
    ].replace("1 from other", "1 image from other")


def test_the_picture_has_tracklets_side_by_side_and_marks_the_image(folder):
    dataset = Dataset(folder)
    row = dataset.image(f"{B}/u2/000.jpg")
    sheet = dataset.picture(dataset.identity(row["identity"]), row["record"])
    assert sheet.shape[1] == 3 * (contact_sheet.WIDTH + 4) + 4
    top = sheet[16 + 40, 4 + 20 :: contact_sheet.WIDTH + 4]
    assert (np.abs(top[:3].astype(int) - RED) < 6).all()
    assert (sheet[14, 2 * (contact_sheet.WIDTH + 4) + 2] == (220, 30, 30)).all()
    assert not (sheet[14, contact_sheet.WIDTH + 6] == (220, 30, 30)).all()
    lost = dataset.image(f"{A}/t1/002.jpg")
    assert dataset.picture([lost], None) is None


def test_long_tracklets_are_thinned_and_damage_is_grey():
    asked = []

    def jpegs(numbers):
        asked.append(numbers)
        return [None] * len(numbers)

    crops = [[(n, n == 3) for n in range(100)], *([[(500, False)]] * 40)]
    sheet = contact_sheet.sheet(crops, jpegs)
    assert sheet.shape[1] == contact_sheet.ACROSS * (contact_sheet.WIDTH + 4) + 4
    assert asked[0][0] == 0
    assert 3 in asked[0]
    assert len(asked[0]) == contact_sheet.DOWN
    assert (sheet[20, 20] == 200).all()


def test_unknown_names_are_answered_with_the_nearest(folder, tmp_path):
    dataset = Dataset(folder)
    with pytest.raises(DatasetError, match=r"no image 'hof 1/t0/0x2.jpg'.*nearest keys are 'hof 1/t0/002.jpg', "):
        dataset.image("hof 1/t0/0x2.jpg")
    with pytest.raises(DatasetError, match="nearest keys are '"):
        dataset.image("something else entirely")
    with pytest.raises(DatasetError, match=r"no identity 77 .* 0 \.\. 2"):
        dataset.identity(77)
    with pytest.raises(DatasetError, match=r"has no provenance.parquet; expected a folder that data_prep"):
        Dataset(tmp_path)


def test_the_nearest_key_is_found_among_many():
    keys = pa.chunked_array([[f"hall/{i // 10:04d}/{i:06d}.jpg" for i in range(50_000)]])
    assert _nearest("hall/1234/012345.jpeg", keys)[0] == "hall/1234/012345.jpg"


def test_a_mistake_is_one_message(folder, tmp_path):
    done = command(folder, [], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: give one of --image=KEY and --identity=ID\n"


def test_the_command_writes_a_png(folder, tmp_path):
    done = command(folder, [f"--image={A}/t1/000.jpg", "--picture=x.png"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "picture: x.png" in done.stdout
    picture = cv2.imread(str(tmp_path / "x.png"))[16 + 40, 4 + 20]
    assert (np.abs(picture[::-1].astype(int) - GREEN) < 6).all()
    assert command(tmp_path, ["--identity=0"], tmp_path).stderr.startswith(
        f"error: {tmp_path} has no provenance.parquet"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.png", "is there already; give another name, or --overwrite to replace it"),
        ("device.png", "is no regular file, expected the name of a file to write"),
        ("folder.png", "is a folder, expected the name of a file to write"),
        ("x.jpg", r"expected the name of a \.png outside of the data set"),
        ("out/metrics.png", r"expected the name of a \.png outside of the data set"),
        ("gs://bucket/x.png", "is a URL, expected a path on this machine"),
    ],
)
def test_a_picture_replaces_nothing_else(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").touch()
    (tmp_path / "device.png").symlink_to("/dev/null")
    for folder in ("folder.png", "out"):
        (tmp_path / folder).mkdir()
    with pytest.raises(UserError, match=message):
        explain._place(name, tmp_path / "out", overwrite=False)
    if name != "a.png":
        with pytest.raises(UserError, match=message):
            explain._place(name, tmp_path / "out", overwrite=True)


def test_the_python_interface(folder, tmp_path):
    people = data_prep.run("tracklets", folder.parent / "in", folder, embedder="mean", preset="paper")  # is finished
    assert people.path == folder
    assert people.metrics["selection"]["images"] == 12
    assert people.provenance.num_rows == 13
    picture = people.show(0)
    assert (picture.dtype, picture.ndim, picture.shape[2]) == (np.uint8, 3, 3)
    shown = cv2.imdecode(np.frombuffer(picture._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    assert (shown[..., ::-1] == picture).all()
    assert repr(picture) == f"<picture, {picture.shape[0]} x {picture.shape[1]} x 3>"
    written = people.images(0)
    assert set(written) == {row["key"] for row in people.identity(0) if row["selected"]}
    assert {(image.dtype, image.shape[2]) for image in written.values()} == {(np.dtype(np.uint8), 3)}
    shown = people._repr_html_()
    assert "<td>Written</td><td>12</td><td>3</td>" in shown
    assert shown.count("<svg") == 1
    assert repr(data_prep.open(folder)) == f"<{folder}: 12 images of 3 identities>"
    with pytest.raises(UserError, match=r"no config\.sigma_cts; did you mean 'sigma_cst'"):
        data_prep.run("tracklets", folder.parent / "in", tmp_path / "out", "mean", sigma_cts=1)
    with pytest.raises(UserError, match="is a URL, expected a path on this machine"):
        data_prep.run("tracklets", "s3://bucket/in", tmp_path / "out", "mean")
    with pytest.raises(UserError, match=r"has no provenance\.parquet"):
        data_prep.open(tmp_path)


@pytest.mark.parametrize("name", ["metrics.json", "provenance.parquet"])
def test_a_damaged_data_set_is_named(folder, tmp_path, name):
    for file in ("metrics.json", "provenance.parquet"):
        (tmp_path / file).write_bytes((folder / file).read_bytes()[: 20 if file == name else None])
    with pytest.raises(DatasetError, match=r"is damaged: .*write the data set again"):
        Dataset(tmp_path)


def test_importing_it_costs_nothing():
    script = "import sys, data_prep; print({'numpy', 'apache_beam', 'jax', 'cion_jax'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT).stdout == "set()\n"


def command(dataset, flags, cwd):
    call = [sys.executable, "-m", "data_prep.explain", f"--dataset={dataset}", *flags]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(cwd)}
    return subprocess.run(call, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)
