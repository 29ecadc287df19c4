"""Unit names: templates for engines and tokens with the model's id as the instance, and for leases with their name.

A lease's token is `token_unit(lease_id(name))` of plan/lease.py.
"""

from __future__ import annotations

import re

SLICE = "mmd.slice"
TUNNELS = "mmd-tunnel@*.service"
BACKS = "mmd-back@*.service"
PATTERNS = ("mmd-model@*.service", "mmd-resident@*.service", "mmd-lease@*.service")

_SEPARATOR = " · "
_UNIT = re.compile(r"mmd-(model|resident)@([^@]+)\.service")
_LEASE = re.compile(r"mmd-(lease|resident@lease)@([^@]+)\.service")


def engine_unit(model_id: str) -> str:
    """Return the service whose main process is the engine."""
    return f"mmd-model@{model_id}.service"


def token_unit(model_id: str) -> str:
    """Return the service that allows the model to use its share of the devices while it is active."""
    return f"mmd-resident@{model_id}.service"


def holder_unit(name: str) -> str:
    """Return the service that runs for as long as a lease is held."""
    return f"mmd-lease@{name}.service"


def back_unit(name: str) -> str:
    """Return the service that restores the models that were unloaded for a lease."""
    return f"mmd-back@{name}.service"


def swap_slice(planner: int, number: int) -> str:
    """Return the slice of one swap: its transaction stops the models that are unloaded and starts the new ones."""
    return f"mmd-swap-{planner}x{number}.slice"


def tunnel_unit(model_id: str) -> str:
    """Return the service that makes the model reachable from the internet."""
    return f"mmd-tunnel@{model_id}.service"


def tunnel_of(unit: str) -> str:
    """Return the model of a tunnel unit: the inverse of `tunnel_unit`."""
    return unit.removeprefix("mmd-tunnel@").removesuffix(".service")


def split(unit: str) -> tuple[str, str] | None:
    """Return `("model" | "resident", id)`; None if the unit is neither an engine nor a token."""
    found = _UNIT.fullmatch(unit)
    return (found[1], found[2]) if found else None


def split_lease(unit: str) -> tuple[str, str] | None:
    """Return `("holder" | "token", name)`; None if the unit belongs to no lease."""
    found = _LEASE.fullmatch(unit)
    return ("holder" if found[1] == "lease" else "token", found[2]) if found else None


def engine_description(model_id: str, engine: str, type: str) -> str:
    """Return the start of an engine unit's Description=: "qwen3 · vllm · chat"."""
    return _SEPARATOR.join((model_id, engine, type))


def engine_and_type(description: str) -> tuple[str, str]:
    """Return the engine's name and the model's type in an engine unit's Description=; ("", "") if it has none."""
    _, engine, type, *_ = (*description.split(_SEPARATOR), "", "")
    return engine, type.partition(" ")[0]


def object_path(unit: str) -> str:
    """Return the D-Bus path of a unit: all bytes but ASCII letters and digits, and a leading digit, become _xx."""
    label = "".join(
        chr(byte) if chr(byte).isalpha() or (index and chr(byte).isdigit()) else f"_{byte:02x}"
        for index, byte in enumerate(unit.encode("ascii"))
    )
    return f"/org/freedesktop/systemd1/unit/{label}"


def unit_of(path: str) -> str:
    """Return the unit of a D-Bus path: the inverse of `object_path`."""
    return re.sub(r"_([0-9a-f]{2})", lambda hexa: chr(int(hexa[1], 16)), path.rpartition("/")[2])
