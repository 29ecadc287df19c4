"""The records of the API as JSON schemas, derived from their dataclasses. Sizes in bytes, times in seconds."""

from __future__ import annotations

from functools import cache
from typing import Any

from mmd.codec import json_schemas
from mmd.control.models.hub_hit import HubHit
from mmd.control.models.setup_info import SetupInfo
from mmd.control.state.leases import LeaseStatus
from mmd.control.state.memory_use import Resources
from mmd.control.state.status import Status
from mmd.control.state.swap_events import SwapEvent
from mmd.gateway.api.records import DownloadRecord, Error, Health, ListedModel, OpenAIModel, OpenAIModels
from mmd.gateway.observe.memory_history import MemoryUseHistory
from mmd.gateway.schedule.queue_status import QueueStatus

Schema = dict[str, Any]

_RECORDS: dict[str, type] = {
    "Health": Health,
    "Status": Status,
    "Model": ListedModel,
    "Setup": SetupInfo,
    "Resources": Resources,
    "History": MemoryUseHistory,
    "Queue": QueueStatus,
    "Swap": SwapEvent,
    "Lease": LeaseStatus,
    "HubModel": HubHit,
    "Job": DownloadRecord,
    "Error": Error,
    "OpenAIModel": OpenAIModel,
    "OpenAIModels": OpenAIModels,
}
# Keys that are left out while they have no value; all others are always there.
_OPTIONAL = {"Job": {"error", "model"}, "ErrorDetails": {"engine_lines"}}

TEXT: Schema = {"type": "string"}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def record(**properties: Schema) -> Schema:
    """Return the schema of an object that always has these keys."""
    return {"type": "object", "properties": properties, "required": list(properties)}


@cache
def schemas() -> dict[str, Schema]:
    """Return the schemas by name. A newer version may add keys to any of them."""
    names = {kind.__name__: name for name, kind in _RECORDS.items()}
    found = {names.get(name, name): _counts(schema) for name, schema in json_schemas(_RECORDS.values(), names).items()}
    for name, schema in found.items():
        if "properties" in schema:
            optional = _OPTIONAL.get(name, set())
            schema["required"] = [key for key in schema["properties"] if key not in optional]
            for key in optional:  # null is never sent
                schema["properties"][key] = _without_null(schema["properties"][key])
    return found


def _counts(schema: Any) -> Any:
    """Add that no number is negative, for each is a size, a count or a time; drop the names of classes."""
    if isinstance(schema, list):
        return [_counts(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    known = {key: _counts(value) for key, value in schema.items() if key not in ("default", "title")}
    return known | ({"minimum": 0} if known.get("type") in ("integer", "number") else {})


def _without_null(schema: Schema) -> Schema:
    choices = [one for one in schema.get("anyOf", [schema]) if one != {"type": "null"}]
    return choices[0] if len(choices) == 1 else {"anyOf": choices}
