"""Whether what the API says is as its own document describes it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import jsonschema_rs

from mmd.gateway.api.openapi import document


def differences(path: str, record: Any) -> list[str]:
    """Between a record and the answer that is described for GET on this path; keys that nobody described are some."""
    described = deepcopy(document())
    answer = described["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    for schema in described["components"]["schemas"].values():
        _close(schema)
    validator = jsonschema_rs.validator_for({**answer, "components": described["components"]})
    return [f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in validator.iter_errors(record)]


def _close(schema: Any) -> None:
    """Lets no object have other keys than those that are described."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema["additionalProperties"] = False
        for each in tuple(schema.values()):
            _close(each)
    elif isinstance(schema, list):
        for each in schema:
            _close(each)
