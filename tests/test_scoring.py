"""What is kept of a run that is scored while it trains."""

import json

import pytest

from cion_jax import scoring


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mAP": null}', '{"mAP": "x"}', "[" * 10**5])
def test_a_damaged_score_is_told_and_does_not_end_the_run(tmp_path, text, capsys):
    kept = tmp_path / "score.json"
    kept.write_text(text)
    assert scoring._best(kept) == -1
    assert "score.json is damaged" in capsys.readouterr().err
    kept.write_text(json.dumps({"mAP": 0.25}))
    assert scoring._best(kept) == 0.25
