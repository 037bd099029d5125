"""Where sequences lie: pictures or a video, and the text of tracks that belongs to each."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep.sources import _rows
from data_prep.sources._formats import DEEPSTREAM, is_per_frame
from data_prep.sources.frames import is_video
from data_prep.sources.pictures import is_picture, last_number, natural
from data_prep.types import Reject, SourceError

TRACKS = ("tracks.txt", "gt/gt.txt", "gt.txt")
PICTURES = ("img1", "images", "img", "imgs", "image", "frames", "rgb")
SEQINFO = "seqinfo.ini"
_XML = ("annotations.xml",)
_TEXTS = (".txt", ".csv", ".tsv", ".xml")
_NO_TRACKS = ("labels.txt", "classes.txt", "readme.txt", "requirements.txt", "obj.names", "seqmap.txt")
_DETECTOR = re.compile(r"(?P<sequence>.+)-(DPM|FRCNN|SDP)")
_LARGEST = 1e9  # number in seqinfo.ini
_DEPTH = 6  # levels of folders below the root that are searched


@dataclass(frozen=True)
class Clip:
    """One sequence.

    Attributes:
      name: unique among the sequences.
      folder: where it was found.
      pictures: folder of its pictures, or None.
      video: its video file, or None.
      text: track text, or a folder of texts per frame; None where there is none.
      prefix: beginning of the names of texts per frame.
      suffix: of its pictures, as seqinfo.ini says.
      length, size, rate: frames, (height, width) and frames per second that seqinfo.ini states.
      problem: why it cannot be read, or None.
    """

    name: str
    folder: Path
    pictures: Path | None = None
    video: Path | None = None
    text: Path | None = None
    prefix: str = ""
    suffix: str | None = None
    length: int | None = None
    size: tuple[int, int] | None = None
    rate: float | None = None
    problem: Reject | None = None


@dataclass
class _Inside:
    """What lies in one folder."""

    folders: list[Path] = field(default_factory=list)
    pictures: int = 0
    videos: list[Path] = field(default_factory=list)
    texts: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


class _Search:
    """One search: the tree below a root, and which text belongs to which sequence."""

    def __init__(self, root: Path, tracks: str | None):
        self.root, self.tracks = root, tracks
        self.tree = dict(_tree(root))
        self.videos = [video for inside in self.tree.values() for video in inside.videos]
        self.by_stem: dict[str, list[Path]] = defaultdict(list)
        self.by_lower: dict[str, list[Path]] = defaultdict(list)
        for inside in self.tree.values():
            for text in inside.texts:
                if text.name.lower() not in _NO_TRACKS:
                    self.by_stem[text.stem].append(text)
                    self.by_lower[text.stem.lower()].append(text)

    def clips(self) -> Iterator[Clip]:
        taken: list[Path] = []
        for folder in self.tree:
            if not any(above in taken for above in (folder, *folder.parents)):
                found = list(self._of_folder(folder))
                yield from found
                taken += [clip.pictures or folder for clip in found if clip.pictures]
                taken += [folder for clip in found if clip.pictures and clip.pictures != folder]

    def _of_folder(self, folder: Path) -> Iterator[Clip]:
        inside, info = self.tree[folder], _seqinfo(folder)
        pictures = self._pictures(folder, info)
        if pictures is not None:
            clip = replace(_stated(info), name=self._name(folder), folder=folder, pictures=pictures)
            clip = self._with_text(clip, clip.name, pictures != folder)
            if clip.text or clip.problem or pictures != folder:
                yield clip
        elif len(inside.videos) == 1:
            yield self._of_video(folder, inside.videos[0])
        elif inside.videos:
            yield from self._of_videos(folder, inside.videos)
        elif folder.parent == self.root or folder == self.root:
            text = self._own_text(folder)
            if text is not None:
                yield Clip(self._name(folder), folder, text=text, problem=_no_video(folder, inside))

    def _of_video(self, folder: Path, video: Path) -> Clip:
        """The only video of a folder; it is called as the folder where the text is, else as the file."""
        clip = replace(_stated(_seqinfo(folder)), name=self._name(folder), folder=folder, video=video)
        if self._own_text(folder) is None:
            by_name = self._with_text(replace(clip, name=video.stem), video.stem)
            if (
                by_name.problem
                or by_name.prefix
                or (by_name.text and by_name.text.stem.lower() in (video.stem.lower(), video.name.lower()))
            ):
                return by_name
        return self._with_text(clip, clip.name)

    def _of_videos(self, folder: Path, videos: Sequence[Path]) -> Iterator[Clip]:
        """Several videos of a folder: each needs a text of its own name."""
        clips = [self._with_text(Clip(video.stem, folder, video=video), video.stem, own=False) for video in videos]
        if any(clip.text is not None for clip in clips):
            yield from clips
            return
        names = ", ".join(video.name for video in videos)
        detail = (
            f"got {names}; expected {PICTURES[0]}/ or exactly one video file, or a text per video, {videos[0].stem}.txt"
        )
        yield Clip(self._name(folder), folder, problem=Reject("no video", str(folder), detail))

    def _pictures(self, folder: Path, info: Mapping[str, str]) -> Path | None:
        names = [info["imdir"]] if info.get("imdir") else []
        below = {path.name.lower(): path for path in self.tree[folder].folders}
        for name in (*names, *PICTURES):
            path = below.get(name.strip("/").lower())
            if path is not None and path in self.tree and self.tree[path].pictures:
                return path
        if self.tree[folder].pictures:
            return folder
        empty = below.get(PICTURES[0])
        return empty if empty is not None and not self.tree[folder].videos else None

    def _name(self, folder: Path) -> str:
        return folder.resolve().name if folder == self.root else folder.name

    def _own_text(self, folder: Path) -> Path | None:
        """A text under one of the usual names in a sequence's own folder."""
        if self.tracks:
            path = folder / self.tracks
            return path if "{sequence}" not in self.tracks and path.is_file() else None
        found = (_found(folder, name) for name in (*TRACKS, *_XML))
        return next((path for path in found if path is not None), None)

    def _with_text(self, clip: Clip, name: str, own: bool = True) -> Clip:
        """The clip with its text: its own folder's, that of its name anywhere, or texts per frame."""
        text = self._own_text(clip.folder) if own or clip.pictures == clip.folder else None
        if text is not None:
            return replace(clip, text=text)
        if self.tracks:
            return replace(clip, text=self._given(name))
        named = self._named(name) or (self._named(clip.video.name) if clip.video else [])
        near = [path for path in named if path.parent == clip.folder]
        candidates = near if len(near) == 1 else named
        if len(candidates) == 1:
            return replace(clip, text=candidates[0])
        if candidates:
            texts = ", ".join(map(str, candidates[:4]))
            detail = f"got {texts}; expected one: give the folder of the right ones as --config.tracks=DIR"
            return replace(clip, problem=Reject("several track texts", str(clip.folder), detail))
        found = self._per_frame(clip, name)
        return clip if found is None else replace(clip, text=found[0], prefix=found[1])

    def _named(self, name: str) -> list[Path]:
        """Texts of a name; where there is none, those that differ from it in capitals alone."""
        return self.by_stem.get(name) or self.by_lower.get(name.lower(), [])

    def _given(self, name: str) -> Path | None:
        """The text that config.tracks means for a sequence: a pattern, or a folder of texts."""
        path = Path(os.path.expanduser(str(self.tracks).replace("{sequence}", name)))
        for place in (path, self.root / path):
            if place.is_file() and ("{sequence}" in str(self.tracks) or path.is_absolute()):
                return place
            if place.is_dir():
                texts = (place / f"{name}{suffix}" for suffix in _TEXTS)
                return next(
                    (text for text in texts if text.is_file()), place / name if (place / name).is_dir() else None
                )
        return None

    def _per_frame(self, clip: Clip, name: str) -> tuple[Path, str] | None:
        """A folder of texts per frame, and what their names begin with."""
        for folder, inside in self.tree.items():
            files = [path.name for path in inside.texts if path.suffix == ".txt" and last_number(path.name) is not None]
            if not files:
                continue
            if all(map(DEEPSTREAM.fullmatch, files)):
                if folder.name == name or clip.folder in folder.parents or len(self.videos) == 1:
                    return folder, ""
            elif clip.video and any(is_per_frame(file, f"{name}_") for file in files):
                return folder, f"{name}_"
            elif clip.pictures and folder.name in (name, "labels"):
                return folder, ""
        return None


def _found(folder: Path, name: str) -> Path | None:
    """A regular file below a folder, by its name or one that differs in capitals alone."""
    if (folder / name).is_file():
        return folder / name
    for part in name.split("/"):
        try:
            inside = {path.name.lower(): path for path in sorted(folder.iterdir())}
        except OSError:
            return None
        if part not in inside:
            return None
        folder = inside[part]
    return folder if folder.is_file() else None


def find(root: Path, tracks: str | None) -> tuple[list[Clip], list[Reject]]:
    """All sequences below a folder; links to folders are followed.

    Args:
      root: the folder; it may be a sequence itself.
      tracks: config.tracks.

    Returns:
      The sequences in the order of their names, and what was set aside.
    """
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder; expected the input's root folder")
    search = _Search(root, tracks)
    found = list(search.clips())
    clips, rejects = _one_of_detectors(found)
    clips = _unique(_one_text_each(clips), root)
    used = [path for clip in found for path in (clip.folder, clip.pictures, clip.text, clip.video) if path is not None]
    for folder in search.tree[root].folders:
        if not any(folder in (path, *path.parents) for path in used) and not any(clip.folder == root for clip in clips):
            detail = f"expected {PICTURES[0]}/ or a video file, and a track text ({', '.join(TRACKS)})"
            rejects.append(Reject("no sequence", str(folder), detail))
    return sorted(clips, key=lambda clip: clip.name), rejects


def class_names(clip: Clip) -> tuple[str, ...]:
    """Names of classes in a labels.txt beside a sequence's text or in its folder, in their order."""
    places = [clip.folder] if clip.text is None else [clip.text.parent, clip.folder]
    for path in (place / "labels.txt" for place in places):
        if path.is_file():
            return tuple(line.strip() for line in _rows.text_of(path).splitlines() if line.strip())
    return ()


def _tree(root: Path) -> Iterator[tuple[Path, _Inside]]:
    """Folders below a root, those above first, with what lies in them; none is entered twice."""
    waiting, seen = [(root, 0)], set()
    while waiting:
        folder, depth = waiting.pop(0)
        real = folder.resolve()
        if real in seen:
            continue
        seen.add(real)
        inside = _Inside()
        with contextlib.suppress(OSError):
            for path in sorted(folder.iterdir(), key=lambda path: natural(path.name)):
                _sort_in(path, inside)
        yield folder, inside
        if depth < _DEPTH:
            waiting += [(path, depth + 1) for path in inside.folders]


def _sort_in(path: Path, inside: _Inside) -> None:
    if path.name.startswith("."):
        return
    if is_picture(path):
        inside.pictures += 1
    elif is_video(path) and not path.is_dir():
        inside.videos.append(path)
    elif path.is_dir():
        inside.folders.append(path)
    elif path.suffix.lower() in _TEXTS:
        inside.texts.append(path)
    else:
        inside.others.append(path)


def _seqinfo(folder: Path) -> Mapping[str, str]:
    """What seqinfo.ini says, names in lower case; nothing where there is none or it is damaged."""
    path = folder / SEQINFO
    if not path.is_file():
        return {}
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(_rows.text_of(path))
    except configparser.Error:
        return {}
    return {name: value for section in parser.sections() for name, value in parser[section].items()}


def _stated(info: Mapping[str, str]) -> Clip:
    """A clip of which nothing is known but what seqinfo.ini states."""
    length, height, width, rate = (
        _positive(info.get(n, "")) for n in ("seqlength", "imheight", "imwidth", "framerate")
    )
    size = (int(height), int(width)) if height and width else None
    return Clip("", Path(), suffix=info.get("imext"), length=int(length) if length else None, size=size, rate=rate)


def _positive(said: str) -> float | None:
    try:
        value = float(said)
    except ValueError:
        return None
    return value if 0 < value < _LARGEST else None


def _no_video(folder: Path, inside: _Inside) -> Reject:
    others = ", ".join(path.name for path in inside.others[:4]) or "none"
    return Reject("no video", str(folder), f"got {others}; expected {PICTURES[0]}/ or exactly one video file")


def _one_of_detectors(clips: list[Clip]) -> tuple[list[Clip], list[Reject]]:
    """MOT17 has every sequence three times, for three detectors; the first with a text stays."""
    groups: dict[tuple[Path, str], list[Clip]] = defaultdict(list)
    for clip in clips:
        match = _DETECTOR.fullmatch(clip.name)
        groups[clip.folder.parent if match else clip.folder, match["sequence"] if match else clip.name].append(clip)
    kept, rejects = [], []
    for group in groups.values():
        first = next((clip for clip in group if clip.text is not None), group[0])
        if not _DETECTOR.fullmatch(first.name):
            kept += group
            continue
        kept.append(first)
        detail = f"the same pictures as {first.name}, which was taken; a sequence counts once"
        rejects += [Reject("another detector's copy", str(clip.folder), detail) for clip in group if clip is not first]
    return kept, rejects


def _one_text_each(clips: list[Clip]) -> list[Clip]:
    """A text belongs to one sequence; of KITTI's cameras it is the left color one's."""
    sharing: dict[tuple[Path, str], list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.text is not None:
            sharing[clip.text, clip.prefix].append(clip)
    result = [clip for clip in clips if clip.text is None]
    for (text, _), group in sharing.items():
        left = [clip for clip in group if clip.folder.parent.name == "image_02"]
        if len(group) == 1 or len(left) == 1:
            result += left if len(group) > 1 else group
            continue
        names = ", ".join(str(clip.video or clip.pictures) for clip in group[:4])
        problem = Reject("one text for several videos", str(text), f"got {names}; expected a text for each of them")
        result += [replace(clip, problem=problem) for clip in group]
    return result


def _unique(clips: list[Clip], root: Path) -> list[Clip]:
    """Clips of one name are called by the way to them."""
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        groups[clip.name].append(clip)
    return [clip if len(groups[clip.name]) == 1 else replace(clip, name=_way(clip, root)) for clip in clips]


def _way(clip: Clip, root: Path) -> str:
    place = clip.video or clip.pictures or clip.folder
    parts = place.relative_to(root).parts if place != root else (root.name,)
    return "+".join(parts[:-1] if clip.pictures and clip.pictures != clip.folder and len(parts) > 1 else parts)
