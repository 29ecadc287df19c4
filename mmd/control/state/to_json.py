"""The records as JSON: the CLI's `--json` and HTTP print the same. Sizes in bytes, times in seconds; the short names
`vram`, `used` and `total` are in GiB, as users of the API were promised.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mmd.plan.boot import Startup
from mmd.plan.residency import Residency
from mmd.quantities import GIB
from mmd.registry.licence import terms

if TYPE_CHECKING:
    from mmd.control.state.memory_use import Memory, Resources
    from mmd.control.state.status import Status
    from mmd.plan.estimate import Estimate
    from mmd.plan.idle import Rules
    from mmd.plan.launch import Launch
    from mmd.registry.record import Model


def status_json(status: Status) -> dict[str, Any]:
    return asdict(status) | {"resources": resources_json(status.resources)}


def resources_json(resources: Resources) -> dict[str, Any]:
    return {
        "vram": _memory_json(resources.vram),
        "ram": _memory_json(resources.ram),
        "gpus": [asdict(gpu) for gpu in resources.gpus],
    }


def models_json(
    models: Iterable[Model],
    residencies: Mapping[str, Residency],
    active: str | None,
    startups: Mapping[str, Startup],
    aliases: Mapping[str, tuple[str, ...]],
) -> list[dict[str, Any]]:
    return [
        model_json(
            model,
            residencies.get(model.id, Residency.ABSENT),
            active,
            startups.get(model.id, Startup.DISABLED),
            aliases.get(model.id, ()),
        )
        for model in models
    ]


def model_json(
    model: Model,
    here: Residency,
    active: str | None,
    startup: Startup = Startup.DISABLED,
    aliases: tuple[str, ...] = (),
) -> dict[str, Any]:
    facts = model.facts
    return {
        "id": model.id,
        "aliases": list(aliases),
        "type": facts.type,
        "engine": engine_family(model),
        "format": facts.format,
        "quant": facts.quant,
        "vram": round(facts.weights_bytes / GIB, 2),
        "vram_bytes": facts.weights_bytes,
        "context": facts.context_length,
        "status": status_word(model.id, here, active),
        "startup": startup,
        "source": model.source,
        "licence": model.licence,
        "terms": terms(model.licence),
        "path": model.path,
    }


def status_word(model_id: str, here: Residency, active: str | None) -> str:
    """The residency in the words of the API, where the one that answers by default is `active`."""
    match here:
        case Residency.RESIDENT:
            return "active" if model_id == active else "resident"
        case Residency.ASLEEP:
            return "sleeping"
        case Residency.STOPPING:
            return "absent"
        case _:
            return here.value


def engine_family(model: Model) -> str:
    """Which kind of engine serves the format, whichever build of it is installed."""
    from mmd.engines import for_format  # an idle gateway does without the engines

    return for_format(model.facts.format).family


def launch_json(launch: Launch) -> dict[str, Any]:
    return {
        "engine": launch.engine,
        "title": launch.title,
        "argv": list(launch.argv),
        "environment": dict(launch.environment),
        "context": launch.context,
        "needs_bytes": launch.needs_bytes,
        "socket": launch.socket,
        "flags": [{"words": list(flag.words), "subject": flag.subject, "reason": flag.reason} for flag in launch.flags],
    }


def estimate_json(estimate: Estimate) -> dict[str, Any]:
    return asdict(estimate) | {"on_gpu": round(estimate.on_gpu, 3)}


def idle_json(rules: Rules) -> dict[str, Any]:
    """null for never."""
    return {
        "sleep_seconds": None if rules.sleep_seconds == math.inf else rules.sleep_seconds,
        "stop_seconds": None if rules.stop_seconds == math.inf else rules.stop_seconds,
        "pinned": rules.pinned,
    }


def _memory_json(memory: Memory) -> dict[str, Any]:
    return {
        "used": round(memory.used_bytes / GIB, 2),
        "total": round(memory.total_bytes / GIB, 2),
        "used_bytes": memory.used_bytes,
        "total_bytes": memory.total_bytes,
    }
