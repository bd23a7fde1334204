"""A step's number notes what is asked of it, and rows are the same by number and by tensor."""

import pytest
import torch

from metalearn._step_number import StepNumber, has_same_answers, row_of_step, step_as


def number(value):
    asked = []
    return StepNumber(value, torch.tensor(value), asked), asked


@pytest.mark.parametrize(
    "ask",
    [
        lambda step: [1, 2][step],
        lambda step: f"{step}",
        lambda step: {1: 2}.get(step),
        lambda step: torch.arange(3)[step],
        lambda step: step.bit_length(),
        lambda step: -step,
        lambda step: float(step),
    ],
)
def test_who_asks_for_the_number_gets_it_alone(ask):
    step, asked = number(1)
    assert not asked
    assert ask(step) == ask(1)
    assert [has_same_answers(other, asked) for other in (0, 1, 2)] == [False, True, False]


@pytest.mark.parametrize(
    "ask",
    [lambda step: step == 0, lambda step: step > 1, lambda step: step % 2, lambda step: bool(step)],
)
def test_numbers_are_alike_that_answer_alike(ask):
    for value in range(4):
        step, asked = number(value)
        assert ask(step) == ask(value)
        alike = [has_same_answers(other, asked) for other in range(4)]
        assert alike == [ask(other) == ask(value) for other in range(4)]


def test_answers_are_compared_in_their_order():
    step, asked = number(2)
    assert step > 0
    assert 6 % step == 0
    assert not has_same_answers(0, asked)  # of which the second would be an error


@pytest.mark.parametrize("ask", [lambda step: torch.arange(3) * step, lambda step: 0.9**step])
def test_what_takes_only_an_int_says_so(ask):
    step, _ = number(1)
    with pytest.raises(TypeError):
        ask(step)


@pytest.mark.parametrize("value", range(5))
def test_rows(value):
    rows = torch.arange(6.0).reshape(3, 2)
    step, asked = number(value)
    assert row_of_step(rows, step).equal(row_of_step(rows, value))
    assert row_of_step(rows, value).equal(rows[min(value, 2)])
    assert step_as(rows, step).equal(step_as(rows, value))
    assert step_as(rows, step).equal(torch.tensor(float(value)))
    assert not asked
