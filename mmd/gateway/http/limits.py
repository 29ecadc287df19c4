"""Limits on what the gateway accepts from one client, and how long it waits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mmd.settings import GatewayTable

_DEFAULTS = GatewayTable()


@dataclass(frozen=True, slots=True)
class Limits:
    head_bytes: int = 64 << 10  # request line and headers
    body_bytes: int = 64 << 20  # images and audio arrive as base64 or as uploads
    head_seconds: float = 20.0  # from the first byte of a request's head to its last
    body_seconds: float = 60.0  # between two pieces of a request's body
    connections: int = 4096  # one more replaces an idle one; the Unix socket's are always accepted
    ahead_bytes: int = 64 << 10  # pipelined data from a client whose current request is being served
    idle_engine_connections: int = 64  # kept for each engine; each occupies a thread of llama-server
    connect_seconds: float = 30.0  # an engine whose backlog stays full for longer counts as failed
    drain_seconds: float = _DEFAULTS.drain_seconds or math.inf  # inf: responses are never cut
    max_wait_seconds: float = _DEFAULTS.max_wait_seconds
    min_residency_seconds: float = _DEFAULTS.min_residency_seconds
    max_waiting: int = 4096  # requests; each that waits costs 20 KiB and its body
    waiting_bytes: int = 512 << 20  # sum of the bodies of waiting requests
    first_comment_seconds: float = 2.0  # before this, a waiting stream can still fail with a status of its own
    comment_seconds: float = 10.0  # proxies and clients give up on streams that are silent for 30 s
    grace_seconds: float = 0.2  # for a request that is on its way when the gateway shuts down
    linger_seconds: float = 2.0  # a refused upload is read for this long, so that the refusal arrives
    resources_seconds: float = 2.0  # between two resources events
    history_seconds: float = 5.0  # between two samples of memory use, kept for an hour
