"""How much the gateway takes from one client, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    head_bytes: int = 64 << 10  # request line and headers
    body_bytes: int = 64 << 20  # images and audio come as base64 or as uploads
    ahead_bytes: int = 64 << 10  # what a client may send ahead while its current request is being answered
    idle_engine_connections: int = 64  # kept for each engine; every one holds a thread of llama-server's
    connect_seconds: float = 30.0  # an engine whose backlog stays full for longer counts as failed
    drain_seconds: float = 60.0  # how long running answers may hold up a swap
    grace_seconds: float = 0.2  # for a request that is on its way when the gateway is told to end
    linger_seconds: float = 2.0  # how long a refused upload is read on, so that the refusal arrives
