"""What libraries remark on and no user can act on stays unsaid."""

import logging

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
