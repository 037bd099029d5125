"""Images of known people that lie in files, read like identity shards. Imports neither TensorFlow nor JAX."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cion_jax.common import images
from cion_jax.common.files import read_regular
from cion_jax.data import records
from cion_jax.data.records import Index
from cion_jax.data.shards import lay


class FileReader:
    """Image files by number, ordered by person and then by name: what `ShardReader` is for shards.

    Attributes:
      index: of the files; people are numbered 0, 1, ... in the order of their own numbers.
    """

    def __init__(self, root: Path, paths: Sequence[Path], person: np.ndarray):
        """Opens no file.

        Args:
          root: folder that all lie in, of which digest and messages take names.
          paths: N files.
          person: [N] int64, whoever is on them, by any number.

        Raises:
          ValueError: there are no files.
        """
        names = [path.relative_to(root).as_posix() for path in paths]
        order = sorted(range(len(names)), key=lambda i: (person[i], names[i]))
        self._root, self._names = root, [names[i] for i in order]
        _, identity = np.unique(person[order], return_inverse=True)
        self.index = Index(identity.astype(np.int64), np.arange(len(names)))

    def __len__(self) -> int:
        return len(self._names)

    def digest(self) -> str:
        """SHA-256 of names, sizes and people: changes where a file comes, goes or is another; contents are not read."""
        digest = hashlib.sha256()
        for name, identity in zip(self._names, self.index.identity, strict=True):
            digest.update(f"{name}\0{(self._root / name).stat().st_size}\0{identity}\n".encode())
        return digest.hexdigest()

    def where(self, record: int) -> str:
        """Path, for messages."""
        return str(self._root / self._names[record])

    def read(self, numbers: Sequence[int] | np.ndarray) -> list[dict[str, Any] | None]:
        """{"image": bytes} of every file asked for, None in place of one that cannot be read."""
        return [self._read(int(number)) for number in numbers]

    def decode(self, data: bytes, canvas_HWC: np.ndarray) -> tuple[int, int]:
        """A picture of any kind that `common.images` reads, laid on a canvas as `shards.decode` does."""
        return lay(images.decode(data), canvas_HWC)

    def _read(self, number: int) -> dict[str, Any] | None:
        try:
            return {records.IMAGE: read_regular(self._root / self._names[number])}
        except OSError:
            return None


class Labels(NamedTuple):
    """In place of an `Index`, where labels come and go.

    Attributes:
      identity: [N] int64, -1 for nobody's.
    """

    identity: np.ndarray


class Relabeled:
    """The images of one or more readers, one after the other, with other labels.

    Attributes:
      index: of these.
    """

    def __init__(self, readers: Sequence[Any], identity: np.ndarray):
        """`identity` [N] int64 of all images of `readers`, whose own are not looked at."""
        self.index = Labels(identity)
        self._readers = readers
        self._first = np.cumsum([0, *map(len, readers)])

    def __len__(self) -> int:
        return int(self._first[-1])

    def digest(self) -> str:
        """Of all data sets."""
        digests = [reader.digest() for reader in self._readers]
        return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def where(self, record: int) -> str:
        """File, for messages."""
        reader, number = self._at(record)
        return reader.where(number)

    def read(self, numbers: Sequence[int] | np.ndarray) -> list[dict[str, Any] | None]:
        """As the readers read."""
        places = [self._at(int(number)) for number in numbers]
        return [reader.read([number])[0] for reader, number in places]

    def decode(self, data: bytes, canvas_HWC: np.ndarray) -> tuple[int, int]:
        """A picture of any kind that one of the readers may hold."""
        return lay(images.decode(data), canvas_HWC)

    def _at(self, record: int) -> tuple[Any, int]:
        which = int(np.searchsorted(self._first, record, side="right")) - 1
        return self._readers[which], record - int(self._first[which])
