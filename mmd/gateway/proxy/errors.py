"""The wording of the proxy's own errors: what happened to a request, and a command that helps."""

from __future__ import annotations

from mmd.errors import EngineFailed, SwappedOut
from mmd.gateway.http.error import ErrorResponse

_RETRY_CONTESTED_SECONDS = 10
_RETRY_SWAPPED_OUT_SECONDS = 1  # the request then waits for its turn


def engine_unreachable(model_id: str, error: OSError) -> EngineFailed:
    reason = error.strerror or "it is too busy"
    return EngineFailed(f"{model_id} accepts no connection: {reason}", hint=_logs_hint(model_id))


def engine_died(model_id: str, when: str) -> ErrorResponse:
    return ErrorResponse(502, f"{model_id} ended {when}", _logs_hint(model_id), "engine_died", "server_error")


def machine_suspends(model_id: str) -> ErrorResponse:
    message = f"the machine was suspended in the middle of this response of {model_id}"
    hint = "send it again; to wait longer: systemd-analyze cat-config systemd/logind.conf   # InhibitDelayMaxSec="
    return ErrorResponse(503, message, hint, "machine_suspends", "server_error")


def swapped_out(model_id: str, reason: str, limit_seconds: float | None) -> ErrorResponse:
    """The response of this model was cut: because of `reason`, after the drain limit or, without one, by a user."""
    took_over = f"{reason} took its memory" if reason else "the model was put to sleep"
    if limit_seconds is None:
        message = f"this response of {model_id} was cut by a user: {took_over}"
        hint = "mmd events   # shows which models were unloaded for which"
    else:
        message = f"this response of {model_id} was cut after {limit_seconds:g} s: {took_over}"
        hint = "man mmd.toml   # gateway.drain_seconds is the limit for running responses; 0: no limit"
    return ErrorResponse.of(SwappedOut(message, hint=hint, retry_after_seconds=_RETRY_SWAPPED_OUT_SECONDS))


def swap_contested(model_id: str, swap_count: int) -> ErrorResponse:
    message = f"{model_id} was unloaded {swap_count} times before it responded"
    hint = "mmd events   # shows what else swaps models; send requests for all of them through the gateway"
    retry_after = (("retry-after", str(_RETRY_CONTESTED_SECONDS)),)
    return ErrorResponse(503, message, hint, "swap_contested", "server_error", more_headers=retry_after)


def _logs_hint(model_id: str) -> str:
    return f"mmd logs {model_id}   # shows why"
