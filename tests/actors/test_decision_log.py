"""Which records of decisions are kept: the newest, and of those before them whatever tells of more than one good call."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from actors.router.decision import NEWEST, PLAIN_PER_S, DecisionLog
from messages.calls import CallEnded, Outcome
from messages.decisions import RecentDecisions
from tests.actors.router_kit import Desk, bid, provider

A = provider("a", "m")
SUCCESS, FAILED = Outcome.SUCCESS, Outcome.FAILED


class Traffic:
    """A router that decides, and is told at once what became of it."""

    def __init__(self, limit: int) -> None:
        self.desk = Desk(A, decisions_kept=limit)
        self.log: DecisionLog = self.desk.actor._record._log
        self.made: list[str] = []

    def request(self, after_s: float, outcome: Outcome | None = SUCCESS) -> str:
        """``outcome`` None: it is still under way. Returns its query's id."""
        self.desk.context.advance(after_s)
        query_id = f"q{len(self.made)}"
        self.desk.decide(bid("a"), query_id=query_id)
        self.made.append(query_id)
        if outcome is not None:
            self.end(query_id, outcome)
        return query_id

    def end(self, query_id: str, outcome: Outcome) -> None:
        self.desk.give(CallEnded("permit", query_id, "a", "m", outcome, True, 1.5))

    def requests(self, count: int, after_s: float) -> None:
        for _ in range(count):
            self.request(after_s)

    @property
    def kept(self) -> list[str]:
        """Newest first."""
        (recent,) = self.desk.give(RecentDecisions(10**6))
        return [decision.query_id for decision in recent.decisions]


def test_up_to_their_rate_the_last_ones_are_kept_whatever_they_tell() -> None:
    traffic = Traffic(300)
    traffic.requests(800, 1.01 / PLAIN_PER_S)
    assert traffic.kept == traffic.made[: -300 - 1 : -1]


def test_a_burst_that_the_log_has_room_for_is_kept_whole() -> None:
    traffic = Traffic(300)
    traffic.requests(500, 1.0)
    traffic.requests(300, 1e-6)
    assert traffic.kept == traffic.made[: -300 - 1 : -1]


def test_beyond_that_the_newest_are_kept_and_of_those_before_so_many_for_each_second() -> None:
    traffic = Traffic(300)
    traffic.requests(4_000, 0.1 / PLAIN_PER_S)
    kept = traffic.kept
    assert kept[:NEWEST] == traffic.made[: -NEWEST - 1 : -1]
    assert len(kept) == 300
    places = [traffic.made.index(query_id) for query_id in kept[NEWEST:]]
    assert all(9 <= newer - older <= 11 for newer, older in itertools.pairwise(places))


def test_a_request_that_failed_is_found_when_thousands_of_others_have_gone_well() -> None:
    traffic = Traffic(300)
    failed = [traffic.request(1.0, FAILED) for _ in range(3)]
    traffic.requests(5_000, 0.1 / PLAIN_PER_S)
    assert traffic.kept[-3:] == failed[::-1]


def test_each_kind_keeps_a_third_of_the_places_for_older_ones_when_another_kind_floods_the_log() -> None:
    traffic = Traffic(NEWEST + 90)
    kinds: list[Outcome | None] = [SUCCESS, FAILED, None]
    for flood in kinds:
        of_kind: dict[Outcome | None, set[str]] = {kind: {traffic.request(1.0, kind) for _ in range(30)} for kind in kinds}
        for _ in range(500):
            traffic.request(1.0, flood)
        kept = set(traffic.kept)
        assert [len(kept & of_kind[kind]) for kind in kinds] == [0 if kind is flood else 30 for kind in kinds]


def test_the_record_of_a_request_under_way_stays_to_be_told_how_it_ended() -> None:
    traffic = Traffic(300)
    under_way = traffic.request(1.0, None)
    traffic.requests(3_000, 0.1 / PLAIN_PER_S)
    assert len(traffic.kept) == 300
    traffic.end(under_way, FAILED)
    assert traffic.kept[-1] == under_way
    assert [end.outcome for _, end in traffic.log.by_query[under_way].attempts] == [FAILED]
    traffic.requests(3_000, 0.1 / PLAIN_PER_S)
    assert traffic.kept[-1] == under_way


def test_long_requests_that_went_well_are_thinned_out_as_short_ones_are() -> None:
    traffic = Traffic(300)
    for _ in range(10):
        for query_id in [traffic.request(0.1 / PLAIN_PER_S, None) for _ in range(160)]:
            traffic.end(query_id, SUCCESS)
    kept = traffic.kept
    assert kept[:NEWEST] == traffic.made[: -NEWEST - 1 : -1]
    assert 80 <= len(set(kept) & set(traffic.made[-NEWEST - 1000 : -NEWEST])) <= 120
    assert not traffic.log._under_way


def test_a_log_that_has_no_room_beyond_the_newest_keeps_these() -> None:
    traffic = Traffic(NEWEST)
    traffic.requests(250, 1.0)
    traffic.request(1.0, FAILED)
    traffic.requests(NEWEST, 1.0)
    assert traffic.kept == traffic.made[: -NEWEST - 1 : -1]


@given(
    limit=st.sampled_from([0, 1, NEWEST - 1, NEWEST, NEWEST + 1, NEWEST + 7]),
    then=st.sampled_from([0, 3, NEWEST, NEWEST + 5]),
    steps=st.lists(st.tuples(st.sampled_from([0.0, 0.0005, 0.01]), st.sampled_from([SUCCESS, FAILED, None])), max_size=40),
)
def test_the_newest_are_there_in_order_and_never_more_than_the_limit(
    limit: int, then: int, steps: list[tuple[float, Outcome | None]]
) -> None:
    traffic = Traffic(limit)
    for _ in range(4):
        for after_s, outcome in steps:
            traffic.request(after_s, outcome)
            assert traffic.log.fault() is None
    for room in (limit, then):
        traffic.log.shrink(room)
        kept = traffic.kept
        newest = min(room, NEWEST, limit, len(traffic.made))
        assert kept[:newest] == traffic.made[: -newest - 1 : -1]
        assert kept == sorted(kept, key=lambda query_id: -int(query_id[1:]))
        assert len(kept) <= room
        assert traffic.log.fault() is None
