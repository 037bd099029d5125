"""Arrays on disk."""

import numpy as np

from cion_jax.common import room


def test_an_array_on_disk_keeps_what_is_let_go_and_leaves_no_file(tmp_path):
    array = room.on_disk((1000, 8), np.float32, tmp_path)
    array[5] = 3
    room.let_go(array[2:])
    assert array[4:6].tolist() == [[0] * 8, [3] * 8]
    assert not list(tmp_path.iterdir())


def test_arrays_in_memory_and_empty_ones_are_left_alone(tmp_path):
    array = np.arange(3)
    room.let_go(array[1:])
    assert array.tolist() == [0, 1, 2]
    assert room.on_disk((0, 8), np.float32, tmp_path).shape == (0, 8)
