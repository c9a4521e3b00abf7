"""Draws from Beta distributions follow their law."""

from collections.abc import Callable
from math import comb, sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.router.strategies.beta import draw_beta

DRAWS = 4000
FARTHEST = 1.95 / sqrt(DRAWS)
"""Kolmogorov and Smirnov: farther from the law than that are fewer than one in a thousand samples."""


def sample(a: float, b: float) -> list[float]:
    rng = Random(f"{a} {b}")
    return sorted(draw_beta(rng, a, b) for _ in range(DRAWS))


def distance(found: list[float], law: Callable[[float], float]) -> float:
    """The greatest between the share of draws below a value and what the law says."""
    return max(max(abs(law(x) - place / DRAWS), abs(law(x) - (place + 1) / DRAWS)) for place, x in enumerate(found))


@pytest.mark.parametrize(("a", "b"), [(1, 1), (1, 5), (5, 1), (2, 2), (3, 9), (9, 3), (40, 2), (2, 40), (30, 30)])
def test_whole_shapes_follow_the_binomial_law(a: int, b: int) -> None:
    count = a + b - 1

    def law(x: float) -> float:
        return sum(comb(count, wins) * x**wins * (1.0 - x) ** (count - wins) for wins in range(a, count + 1))

    assert distance(sample(a, b), law) < FARTHEST


@pytest.mark.parametrize("shape", [1.0, 1.5, 37.25, 5000.0])
def test_with_a_shape_of_one_it_is_a_power(shape: float) -> None:
    assert distance(sample(shape, 1.0), lambda x: x**shape) < FARTHEST
    assert distance(sample(1.0, shape), lambda x: 1.0 - (1.0 - x) ** shape) < FARTHEST


SHAPES = st.floats(1.0, 50.0) | st.floats(1.0, 1e6) | st.floats(0.0, 1e-6).map(lambda more: 1.0 + more)


@given(a=SHAPES, b=SHAPES, seed=st.integers())
def test_mean_and_spread_are_those_of_the_law_whatever_the_shapes(a: float, b: float, seed: int) -> None:
    rng, count = Random(seed), 400
    found = [draw_beta(rng, a, b) for _ in range(count)]
    mean, deviation = a / (a + b), sqrt(a * b / ((a + b) ** 2 * (a + b + 1.0)))
    assert all(0.0 <= x <= 1.0 for x in found)
    assert abs(sum(found) / count - mean) <= 7.0 * deviation / sqrt(count)
    assert 0.3 < sqrt(sum((x - mean) ** 2 for x in found) / count) / deviation < 3.0
