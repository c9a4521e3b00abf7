"""The decision to trace: the client's if it sent one, else a draw of our own."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel.propagation import IncomingTrace
from otel.sampling import Ids, Sampler

SAMPLED = IncomingTrace("a" * 32, "b" * 16, sampled=True)
UNSAMPLED = IncomingTrace("a" * 32, "b" * 16, sampled=False)


@given(st.floats(0, 1), st.integers())
def test_the_client_decides_if_it_sent_a_traceparent_whatever_the_ratio(ratio: float, seed: int) -> None:
    sampler = Sampler(ratio, Random(seed))
    assert sampler.decide(SAMPLED)
    assert not sampler.decide(UNSAMPLED)


def test_a_ratio_of_one_takes_all_and_of_zero_none() -> None:
    assert all(Sampler(1.0, Random(1)).decide(None) for _ in range(100))
    assert not any(Sampler(0.0, Random(1)).decide(None) for _ in range(100))


def test_the_ratio_is_the_share_of_requests_that_are_traced() -> None:
    sampler = Sampler(0.1, Random(7))
    taken = sum(sampler.decide(None) for _ in range(10_000))
    assert 900 < taken < 1100


def test_the_same_seed_gives_the_same_decisions_and_ids() -> None:
    def story() -> list[object]:
        rng = Random("seed")
        sampler, ids = Sampler(0.5, rng), Ids(rng)
        return [(sampler.decide(None), ids.trace_id(), ids.span_id()) for _ in range(20)]

    assert story() == story()


def test_the_clients_decision_draws_nothing() -> None:
    rng = Random(3)
    before = rng.getstate()
    Sampler(0.5, rng).decide(SAMPLED)
    assert rng.getstate() == before


class ZeroFirst(Random):
    draws = 0

    def getrandbits(self, k: int, /) -> int:
        self.draws += 1
        return 0 if self.draws == 1 else super().getrandbits(k)


def test_an_id_is_never_zero() -> None:
    assert Ids(ZeroFirst(1)).trace_id() != 0
    assert Ids(ZeroFirst(1)).span_id() != 0


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_out_of_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Sampler(ratio, Random(1))
