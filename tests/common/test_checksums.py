"""Digests as sha256sum writes them."""

import shutil
import subprocess

import pytest

from cion_jax.common import checksums
from cion_jax.common.checksums import ChecksumError

# sha256sum of "abc" is the example of FIPS 180-4.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture
def sums(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a", "sub/b"):
        (tmp_path / name).write_text("abc")
    checksums.write(tmp_path / checksums.SUMS, {name: tmp_path / name for name in ("a", "sub/b")})
    return tmp_path / checksums.SUMS


def test_they_are_what_sha256sum_writes_and_checks(sums):
    assert sums.read_text() == f"{ABC}  a\n{ABC}  sub/b\n"
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", sums.name], cwd=sums.parent, check=True, capture_output=True)
    assert checksums.damage(sums, ["a", "sub/b"]) == []


def test_what_has_changed_is_gone_or_unknown_is_named(sums):
    (sums.parent / "a").write_text("abd")
    (sums.parent / "sub" / "b").unlink()
    changed, gone, unknown = checksums.damage(sums, ["c"])
    assert (
        "/a is not what was written: its SHA-256 is a52d159f262b2c6d..., SHA256SUMS expects ba7816bf8f01cfea..."
        in changed
    )
    assert "sub/b, which SHA256SUMS names, is missing" in gone
    assert unknown == f"no digest recorded for {sums.parent}/c in SHA256SUMS"


def test_every_flipped_bit_of_the_digests_themselves_shows(sums):
    whole = sums.read_bytes()
    unseen = []
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        sums.write_bytes(data)
        if not checksums.damage(sums, ["a", "sub/b"]):
            unseen.append(bytes(data))
    assert all(data.lower().replace(b" *", b"  ") == whole for data in unseen)  # other spellings of the same


@pytest.mark.parametrize("line", [f"{ABC}  ../a\n", f"{ABC}  /etc/passwd\n", f"{ABC}  a", "abc  a\n", "\xff\n"])
def test_lines_that_are_none_are_damage_and_lead_nowhere(sums, line):
    sums.write_bytes(line.encode("latin-1"))
    assert "SHA256SUMS is damaged" in checksums.damage(sums)[0]


def test_without_digests_nothing_is_wrong_and_it_is_said(tmp_path):
    assert checksums.damage(tmp_path / checksums.SUMS, ["a"]) == []
    assert checksums.told(tmp_path / checksums.SUMS, ["a", "b"]) == ", no digest recorded for a, b"


@pytest.mark.parametrize("written", [f"{ABC}  w.bin\n", f"{ABC.upper()} *w.bin\r\n", f"{ABC}\n"])
def test_a_digest_beside_a_file_whoever_wrote_it(tmp_path, written):
    file = tmp_path / "w.bin"
    file.write_text("abc")
    checksums.beside(file).write_bytes(written.encode())
    checksums.check(file)
    file.write_text("abd")
    with pytest.raises(ChecksumError, match=r"w\.bin is not what was written"):
        checksums.check(file)
