"""What the tests of whole runs share."""

import pytest

from data_prep.output.report import page
from tests.data_prep.painted import MeanColor, as_they_are


@pytest.fixture
def mean_color(monkeypatch):
    """A function that spoils the embedder from now on. Leaves out the report, for speed."""
    monkeypatch.setattr(page, "write", lambda folder, run: None)
    monkeypatch.setattr(MeanColor, "spoil", MeanColor.spoil)

    def install(spoil=as_they_are):
        MeanColor.calls, MeanColor.spoil = 0, staticmethod(spoil)

    install()
    return install
