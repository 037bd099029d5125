"""What libraries remark on and no user can act on stays unsaid."""

import logging
import sys

from cion_jax.training import metrics
from cion_jax.training.checkpoint import FOLDER, Checkpointer


def test_reading_a_run_warns_of_nothing(tmp_path, caplog):
    (tmp_path / FOLDER).mkdir()
    with caplog.at_level(logging.WARNING), Checkpointer(tmp_path, read_only=True) as checkpointer:
        assert checkpointer.latest() is None
    assert not [record.getMessage() for record in caplog.records]


def test_other_warnings_of_the_library_are_still_said(caplog):
    with caplog.at_level(logging.WARNING):
        logging.getLogger("absl").warning("the disk is slow")
    assert [record.getMessage() for record in caplog.records] == ["the disk is slow"]


def test_without_tensorboard_rows_are_written_and_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "clu", None)
    board = metrics._open_board(tmp_path)
    board.write_scalars(1, {"loss": 1.0})
    board.close()
    assert "pip install 'cion-jax[tensorboard]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
