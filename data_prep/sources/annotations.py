"""Annotation lists: JSON of `{"file_path": ..., "id": ...}`, already identified, as CION-AL comes."""

from __future__ import annotations

import json
import posixpath
from pathlib import Path

from data_prep.sources import REGISTRY
from data_prep.sources.pictures import Pictures, drop_duplicates, is_picture, natural
from data_prep.types import Image, Reject, SourceError


@REGISTRY.add("annotations")
class Annotations(Pictures):
    """Images whose identities are known; data_prep writes them to shards without denoising.

    The image root is the JSON file's folder. The video is the first folder of `file_path` ("sec0"), or "."
    for an image that lies in the root itself; the tracklet is the id as text. `truth` is the id where all ids
    are whole numbers; otherwise the ids, compared as text, are numbered from 0 in natural order. That a path
    stays below the root is judged by its text: folders that are links are followed.
    """

    layout = 'a JSON list of {"file_path": "sec0/1.jpg", "id": 7}, paths relative to its folder'
    identified = True

    def __init__(self, root: Path):
        """Reads the whole list; `root` is the JSON file or a folder that holds exactly one."""
        file = _find(root)
        super().__init__(file.parent)
        parsed = [_parse(f"{file}[{i}]", entry) for i, entry in enumerate(_load(file))]
        rows = [row for row in parsed if not isinstance(row, Reject)]
        number = _numbers([identity for _, identity in rows])
        images, duplicates = drop_duplicates(
            (_image(path, str(identity), number[str(identity)]) for path, identity in rows),
            by=lambda image: image.path,
        )
        self.rejected = [row for row in parsed if isinstance(row, Reject)] + duplicates
        self._videos: dict[str, list[Image]] = {}
        for image in images:
            self._videos.setdefault(image.video, []).append(image)
        if not images:
            why = f"; the first of {len(self.rejected)} rejects: {self.rejected[0].detail}" if self.rejected else ""
            raise SourceError(f'no usable entry {{"file_path": ..., "id": ...}} in {file}{why}')

    def videos(self) -> list[str]:
        """Sorted top folders."""
        return sorted(self._videos)

    def read(self, video: str) -> tuple[list[Image], list[Reject]]:
        """All images under one top folder; those whose file is missing become Rejects."""
        images, rejects = [], []
        for image in sorted(self._videos[video], key=lambda image: (image.tracklet, natural(image.path))):
            if (self.root / image.path).is_file():
                images.append(image)
            else:
                detail = f"no file {self.root / image.path}; expected file_path relative to the JSON file's folder"
                rejects.append(Reject("missing file", image.key, detail))
        return images, rejects


def _find(root: Path) -> Path:
    if root.is_file():
        return root
    files = sorted(root.glob("*.json"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise SourceError(f"expected exactly one .json in {root}, got {names}; give the file itself as input")
    return files[0]


def _load(file: Path) -> list:
    try:
        entries = json.loads(file.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{file}: line {error.lineno}, column {error.colno}: {error.msg}; expected a JSON list"
        ) from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{file}: {error}; expected a JSON list in UTF-8") from error
    if not isinstance(entries, list):
        raise SourceError(f'{file}: got a JSON {type(entries).__name__}, expected a list of {{"file_path", "id"}}')
    return entries


def _parse(where: str, entry: object) -> tuple[str, int | str] | Reject:
    """(normalized path, id) of one entry of the list."""
    if not isinstance(entry, dict) or not {"file_path", "id"} <= entry.keys():
        detail = f'got {_short(entry)}, expected {{"file_path": ..., "id": ...}}'
        return Reject("malformed entry", where, detail)
    path, identity = entry["file_path"], entry["id"]
    if not isinstance(path, str) or "\0" in path or not is_picture(Path(path)):
        detail = f"got file_path {_short(path)}, expected the path of a jpg, jpeg, png, webp or bmp"
        return Reject("malformed entry", where, detail)
    whole = isinstance(identity, int) and not isinstance(identity, bool) and identity >= 0
    if not whole and not (isinstance(identity, str) and identity.strip()):
        detail = f"got id {_short(identity)}, expected a whole number from 0 or a text"
        return Reject("malformed entry", where, detail)
    normal = posixpath.normpath(path)
    if normal.startswith(("/", "../")):
        detail = f"got {path!r}, expected a path that stays below the JSON file's folder"
        return Reject("path outside the image root", where, detail)
    return normal, identity


def _image(path: str, identity: str, truth: int) -> Image:
    video, _, rest = path.partition("/") if "/" in path else (".", "", path)
    return Image(f"{video}/{identity}/{rest}", video, identity, -1, path, truth=truth)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _numbers(identities: list[int | str]) -> dict[str, int]:
    if all(isinstance(identity, int) for identity in identities):
        return {str(identity): int(identity) for identity in identities}
    return {name: i for i, name in enumerate(sorted({str(identity) for identity in identities}, key=natural))}
