"""How much the gateway takes from one client, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass

from mmd.settings import GatewayTable

_DEFAULTS = GatewayTable()


@dataclass(frozen=True, slots=True)
class Limits:
    head_bytes: int = 64 << 10  # request line and headers
    body_bytes: int = 64 << 20  # images and audio come as base64 or as uploads
    head_seconds: float = 20.0  # from the first byte of a request's head to its last
    body_seconds: float = 60.0  # how long nothing more of a body may come
    connections: int = 4096  # one more takes the place of one that is idle; the Unix socket's are let in
    ahead_bytes: int = 64 << 10  # what a client may send ahead while its current request is being answered
    idle_engine_connections: int = 64  # kept for each engine; every one holds a thread of llama-server's
    connect_seconds: float = 30.0  # an engine whose backlog stays full for longer counts as failed
    drain_seconds: float = _DEFAULTS.drain_seconds
    max_wait_seconds: float = _DEFAULTS.max_wait_seconds
    min_residency_seconds: float = _DEFAULTS.min_residency_seconds
    max_waiting: int = 4096  # a request that waits costs 20 KiB, and its body
    waiting_bytes: int = 512 << 20  # of their bodies
    first_comment_seconds: float = 2.0  # until then a stream that waits can still fail with a status of its own
    comment_seconds: float = 10.0  # proxies and clients give up on streams that are silent for 30
    grace_seconds: float = 0.2  # for a request that is on its way when the gateway is told to end
    linger_seconds: float = 2.0  # how long a refused upload is read on, so that the refusal arrives
    resources_seconds: float = 2.0  # how often those who listen to what happens are told what memory is used
    history_seconds: float = 5.0  # how often that is noted, for an hour
