"""What a video was made of: what its source read, which files that came from, and what was done with them.

Work is remembered by it. Files are judged by name, size and time, texts by what was read from them, so that looking
costs no more than reading the texts again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cion_jax.common.files import write_text
from cion_jax.common.progress import progress
from data_prep.config import Config
from data_prep.pipeline.workdir import Work
from data_prep.types import Image, Reject, Source

WORK_FORMAT = 6  # of the files in the work folder; to be raised when what they hold changes
Stamp = Mapping[str, Any]
"""What the files of a video were made of; equal stamps make equal files."""

_SAID = {
    "references": "other names, frames or boxes",
    "rejects": "other inputs set aside",
    "files": "files of other sizes or times",
    "extractor": "another extractor",
}
_NAMED = 3  # videos that a message names


def read(source: Source, video: str, extractor: str, config: Config) -> tuple[list[Image], list[Reject], Stamp]:
    """All that a source says of a video, and the stamp of what is made of it.

    Args:
      source: where it lies.
      video: its key.
      extractor: digest of what makes features of it.
      config: how it is thinned and blurred.
    """
    images, rejects = source.read(video)
    stamp = {
        "video": video,
        "images": len(images),
        "references": _digest(map(repr, images)),
        "rejects": _digest(map(repr, rejects)),
        "files": _files(source, images),
        "extractor": extractor,
        "max_tracklet_images": config.max_tracklet_images,
        "blur_faces": config.blur_faces,
        "work_format": WORK_FORMAT,
    }
    return images, rejects, stamp


def save(work: Work, stamp: Stamp) -> None:
    """Writes the stamp of a video whose other files are about to be written."""
    write_text(work.file(stamp["video"], "input"), json.dumps(stamp, sort_keys=True) + "\n")


def stamps(work: Work) -> dict[str, Stamp]:
    """The stamps of all videos that the work folder has files of; one that is cut short counts as missing."""
    found = {}
    for path in sorted(work.folder.glob("*.input")):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            stamp = json.loads(path.read_text())
            found[stamp["video"]] = stamp | {"images": int(stamp["images"])}
    return found


def changes(
    work: Work, source: Source, videos: Sequence[str], extractor: str, config: Config, whole: bool
) -> dict[str, str]:
    """What is not any more as it was, by video.

    Args:
      work: what was made.
      source: the input as it is.
      videos: of the source.
      extractor, config: see `read`.
      whole: whether all videos were made; a new one is a change then.
    """
    before, found = stamps(work), {}
    known = [video for video in videos if video in before]
    for video in progress(known, "looking at the input") if known else ():
        try:
            _, _, now = read(source, video, extractor, config)
        except OSError as error:
            found[video] = f"cannot be read any more: {error}"
            continue
        if before[video] != now:
            found[video] = _difference(before[video], now)
    lost = [video for video in videos if video not in before and work.file(video, "arrow").exists()]
    found |= dict.fromkeys(lost, "what it was made of is not known")
    found |= dict.fromkeys(sorted(before.keys() - set(videos)), "is gone")
    return found | (dict.fromkeys(sorted(set(videos) - before.keys()), "is new") if whole else {})


def told(found: Mapping[str, str], of: int) -> str:
    """The changes in a sentence's part: how many, and what happened to the first."""
    first = "; ".join(f"{video!r}: {what}" for video, what in list(found.items())[:_NAMED])
    return f"{len(found):,} of {of:,} videos, {first}" + ("; ..." if len(found) > _NAMED else "")


def _difference(old: Stamp, new: Stamp) -> str:
    names = [name for name in new if old.get(name) != new[name]]
    if "images" in names:
        return f"{old['images']:,} images then, {new['images']:,} now"
    if "references" in names and "files" in names:
        names.remove("files")  # other names are other files
    return ", ".join(_SAID.get(name, f"{name} {old.get(name)!r} then, {new[name]!r} now") for name in names)


def _files(source: Source, images: Sequence[Image]) -> str:
    """Digest of names, sizes and times of the files behind images."""
    paths = [str(source.container)] if source.container else dict.fromkeys(image.path for image in images)
    return _digest(f"{path} {_status(Path(source.root, path))}" for path in paths)


def _status(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
