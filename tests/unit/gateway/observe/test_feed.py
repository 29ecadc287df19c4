"""The feed: each listener gets all events in order, and cannot delay the gateway."""

from __future__ import annotations

from mmd.gateway.observe.feed import EventKind, Feed


async def numbers(subscription: object) -> list[int]:
    return [notice.number async for notice in subscription]  # type: ignore[attr-defined]


async def test_listeners_get_events_in_order_while_they_listen() -> None:
    feed = Feed()
    feed.publish(EventKind.SWAP, {"nobody": "listens"})
    with feed.subscribe() as early:
        feed.publish(EventKind.SWAP, {"model": "a"})
        with feed.subscribe() as late:
            feed.publish(EventKind.QUEUE, {"turns": []})
            feed.close()
            assert await numbers(early) == [2, 3]
            assert await numbers(late) == [3]


async def test_stalled_listener_is_disconnected() -> None:
    feed = Feed()
    with feed.subscribe() as stalled, feed.subscribe() as brisk:
        reading = brisk.__aiter__()
        for _ in range(300):
            feed.publish(EventKind.RESOURCES, {})
            await anext(reading)
        assert len(await numbers(stalled)) == 256
        feed.publish(EventKind.RESOURCES, {})
        assert (await anext(reading)).number == 301


def test_feed_knows_whether_it_has_listeners() -> None:
    feed = Feed()
    with feed.subscribe():
        assert feed.has_listeners
    assert not feed.has_listeners
