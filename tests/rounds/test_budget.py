"""Minutes into steps."""

import pytest

from cion_jax.rounds import budget
from cion_jax.rounds.budget import Pace, Plan


def test_the_time_that_is_left_is_shared_by_the_rounds():
    """An hour, of which the second round's identities take ten minutes and the end one: 49 minutes for two rounds. Of
    24.5 minutes a run takes one until its first step is done."""
    assert budget.plan(3600, rounds=2, overhead=600, pace=Pace(60, 2)) == Plan(steps=705, rounds=2, seconds=2.0)


def test_many_rounds_are_no_shorter_than_a_hundred_steps():
    """400 seconds and the end: four rounds would have 25 steps and three 44, two have 100 after their identities."""
    assert budget.plan(460, rounds=4, overhead=100, pace=Pace(0, 1.5)) == Plan(steps=100, rounds=2, seconds=1.5)


def test_too_little_for_two_rounds_is_one():
    assert budget.plan(200, rounds=2, overhead=100, pace=Pace(0, 3)) == Plan(steps=46, rounds=1, seconds=3.0)


def test_too_little_for_one_is_said(capsys):
    assert budget.plan(70, rounds=2, overhead=100, pace=Pace(0, 3)) == Plan(steps=budget.FEWEST, rounds=1, seconds=3.0)
    assert "warning: 1 min 10 s are left for training, 2 min 00 s are needed for 20 steps" in capsys.readouterr().err


def test_a_plan_is_made_once(tmp_path):
    made = [Plan(1, 2), Plan(3, 4)]
    assert [budget.written(tmp_path / "plan.json", lambda: made.pop(0)) for _ in range(3)] == [Plan(1, 2)] * 3


@pytest.mark.parametrize(("plan", "said"), [(Plan(30, 2, 2.0), "2 rounds of 30 steps (1,920 images), about 1 min")])
def test_what_people_read(plan, said):
    assert plan.describe(64).startswith(said)
