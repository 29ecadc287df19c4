"""Compare the API's responses with its OpenAPI document."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import jsonschema_rs

from mmd.gateway.api.openapi import document


def differences(path: str, record: Any) -> list[str]:
    """List how a record differs from the documented response of GET on this path; undocumented keys count."""
    described = deepcopy(document())
    answer = described["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    for schema in described["components"]["schemas"].values():
        _close(schema)
    validator = jsonschema_rs.validator_for({**answer, "components": described["components"]})
    return [f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in validator.iter_errors(record)]


def _close(schema: Any) -> None:
    """Forbid keys that are not documented, in every object."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema["additionalProperties"] = False
        for each in tuple(schema.values()):
            _close(each)
    elif isinstance(schema, list):
        for each in schema:
            _close(each)
