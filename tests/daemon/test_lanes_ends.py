"""How requests end, the same on both lanes: an answer is given once its last byte is; who is gone before is counted so."""

from random import Random
from types import SimpleNamespace
from typing import cast

import pytest

from otel.spans import Tracing
from runtime.config.settings import ServerSettings
from runtime.courier.call import CourierHouse
from runtime.http import raw_sink
from runtime.http.edge import Edge
from runtime.ports import EdgeRequest, EdgeSink
from tests.daemon.edge_desk import until
from tests.daemon.lane_kit import TURNS, both_lanes, turns
from tests.daemon.test_lanes import LINE, post
from tests.lines import LANES, LaneName, replies


@pytest.mark.parametrize("lane", LANES)
async def test_the_end_of_a_stream_waits_for_nobody(lane: LaneName, monkeypatch: pytest.MonkeyPatch) -> None:
    async def streams(request: EdgeRequest, sink: EdgeSink) -> None:
        await sink.start(200, [])
        await sink.write(b"all of it")
        # The client takes nothing, and from here on whatever is more must wait for it.
        line.protocol.pause_writing()
        monkeypatch.setattr(raw_sink, "UNWAITED_BYTES_MAX", 0)
        await sink.end()

    async with both_lanes() as lanes:
        lanes.desks[lane].behave = streams
        line = lanes.connect(lane)
        line.give(post(b"{}"))
        await turns(TURNS)

        assert (lanes.desks[lane].ends, lanes.desks[lane].count) == (["whole"], 0)
        (reply,) = replies(line.said)
        assert (reply.status, reply.body, reply.is_whole) == (200, b"all of it", True)


@pytest.mark.parametrize("lane", LANES)
async def test_who_never_takes_the_end_of_a_stream_is_cut_in_time(lane: LaneName) -> None:
    async def streams(request: EdgeRequest, sink: EdgeSink) -> None:
        await sink.start(200, [])
        line.protocol.pause_writing()
        await sink.end()

    async with both_lanes(idle_s=0.05) as lanes:
        lanes.desks[lane].behave = streams
        line = lanes.connect(lane)
        line.give(post(b"{}"))

        await until(lambda: line.is_closed)
        assert lanes.desks[lane].ends == ["whole"]


@pytest.mark.parametrize("lane", LANES)
async def test_a_stream_that_its_client_did_not_wait_for_has_no_end(lane: LaneName) -> None:
    async def streams(request: EdgeRequest, sink: EdgeSink) -> None:
        await sink.start(200, [])
        line.is_closed = True
        line.protocol.connection_lost(None)
        await sink.end()

    async with both_lanes() as lanes:
        lanes.desks[lane].behave = streams
        line = lanes.connect(lane)
        line.give(post(b"{}"))
        await turns(TURNS)

        assert lanes.desks[lane].ends == ["ClientGone"]


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    ("is_cut", "told", "counted"),
    [
        (True, [503], {"by_status": {"503": 1}, "refused": 1, "client_gone": 0}),
        (False, [], {"by_status": {}, "refused": 0, "client_gone": 1}),
    ],
    ids=["the daemon ends", "the client leaves"],
)
async def test_a_request_that_ends_before_its_body_is_counted_as_what_its_client_saw(
    lane: LaneName, is_cut: bool, told: list[int], counted: dict[str, object]
) -> None:
    edge = Edge(cast(CourierHouse, None), ServerSettings(), Random(0))
    async with both_lanes(edges=dict.fromkeys(LANES, edge)) as lanes:
        line = lanes.connect(lane)
        line.give(LINE + b"Content-Length: 5\r\n\r\n12")
        await turns(TURNS)
        assert edge.shown()["in_flight"] == 1

        if is_cut:
            edge.cut()
        else:
            line.close()
        await turns(TURNS)

        assert [reply.status for reply in replies(line.said)] == told
        assert edge.shown() == {"requests": 1, "in_flight": 0} | counted


@pytest.mark.parametrize("lane", LANES)
async def test_a_request_that_breaks_over_a_mistake_of_ours_is_counted_as_what_its_client_is_told(lane: LaneName) -> None:
    house = SimpleNamespace(tracing=Tracing.off())  # It lacks all the rest.
    edge = Edge(cast(CourierHouse, house), ServerSettings(), Random(0))
    async with both_lanes(edges=dict.fromkeys(LANES, edge)) as lanes:
        line = await lanes.say(lane, post(b'{"model": "m", "messages": [{"role": "user", "content": "hello"}]}'))

        assert [reply.status for reply in replies(line.said)] == [500]
        assert edge.shown() == {"requests": 1, "in_flight": 0, "refused": 0, "client_gone": 0, "by_status": {"500": 1}}


@pytest.mark.parametrize("lane", LANES)
async def test_a_stream_that_breaks_over_a_mistake_of_ours_is_cut_and_nothing_comes_after_it(lane: LaneName) -> None:
    async def breaks(request: EdgeRequest, sink: EdgeSink, task: object) -> None:
        await sink.start(200, [])
        await sink.write(b"a part")
        raise ZeroDivisionError("a mistake")

    async with both_lanes() as lanes:
        vars(lanes.desks[lane])["serve"] = breaks
        line = await lanes.say(lane, post(b"{}"))

        (reply,) = replies(line.said)
        assert (reply.status, reply.body, reply.is_whole, line.is_closed) == (200, b"a part", False, True)
        assert lanes.desks[lane].count == 0
