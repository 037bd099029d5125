"""Results in order, made a few ahead."""

import os

import pytest

from cion_jax.common import threads


def test_results_come_in_order_and_few_are_made_ahead():
    made = []
    found = threads.ahead(lambda item: made.append(item) or item * item, range(100))
    assert [next(found), next(found)] == [0, 1]
    assert len(made) <= 2 + os.cpu_count()
    assert list(found) == [item * item for item in range(2, 100)]
    assert sorted(made) == list(range(100))


def test_an_error_comes_out_where_its_result_would():
    found = threads.ahead(lambda item: 1 // item, [1, 0])
    assert next(found) == 1
    with pytest.raises(ZeroDivisionError):
        next(found)
