"""How the benchmarks count and compare."""

import pytest

from experiments.benchmarks import measure, scaling
from worlds import TINY


def test_operations_of_a_rollout_are_counted_term_by_term():
    config = TINY.replace(horizon=3, num_scenarios=1, num_rollouts=1)
    arms, width, total = 3, 8, 0
    for seen in (1, 2, 3):  # Keys in the cache, this round's included.
        total += 2 * (2 * arms + 1) * width  # embedding
        for _ in range(2):
            total += 2 * width * 3 * width + 2 * width * width  # queries, keys, values; output
            total += 2 * width * seen + 2 * width * seen  # scores, sums of values
            total += 2 * (2 * width * 4 * width)  # both layers of the MLP
        total += 2 * width * arms  # logits
    assert measure.rollout_flops(config) == total
    assert measure.read_bytes(config) == 2 * 2 * (1 + 2 + 3) * width * 4
    assert measure.env_steps(config) == 3


def test_an_imitated_trajectory_costs_three_forward_passes():
    config = TINY.replace(num_rollouts=4, k=2, num_epochs=3)
    assert measure.iteration_flops(config) == pytest.approx(measure.rollout_flops(config) * (1 + 3 * 3 * 2 / 4))


def test_tasks_take_turns():
    order: list[str] = []
    found = measure.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, 0.0)
    assert order == ["a", "a", "b", "b"] + 3 * ["a", "b"]
    assert {name: len(times) for name, times in found.items()} == {"a": 3, "b": 3}


def test_ratios_are_taken_pair_by_pair():
    assert measure.speedup([1.0, 2.0, 4.0], [3.0, 4.0, 4.0]) == measure.Spread(2.0, 1.0, 3.0)


def test_the_exponent_of_a_power_law():
    sizes = [10, 100, 1000]
    assert scaling.exponent({size: 3 * size**0.5 for size in sizes}) == pytest.approx(0.5)


def test_what_a_share_of_rollouts_needs():
    config = scaling.transformer(width=16, horizon=10, num_arms=2, rollouts=64)
    columns = 2 + 3 * 2  # Action and reward; probabilities, expected and drawn rewards of each arm.
    state = 2 * 2 * 10 * 16 * 4 + 5 * 4  # Keys and values of two layers, and a token.
    assert scaling.needed_bytes(config) == 64 * 10 * columns * 4 + 64 * state
