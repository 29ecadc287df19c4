"""The description of the API: a table of operations, and the OpenAPI 3.1 document made from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmd import __version__
from mmd.gateway.api.schemas import TEXT, Schema, array, record, ref, schemas

JSON = "application/json"
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path; `{names}` in the path are strings."""

    method: str
    path: str
    summary: str
    answer: Schema = field(default_factory=dict)
    body: Schema | None = None
    query: tuple[Mapping[str, Any], ...] = ()  # OpenAPI's parameter objects, without "in"
    status: int = 200
    content_type: str = JSON


_DONE = {"allOf": [ref("Status"), record(success={"const": True})]}


# `cut`: how many running responses were cut for it, by model
_ACTIVATED = {"allOf": [_DONE, record(cut=array(ref("InFlight")))]}
_NOW = {"type": "boolean"}


def _body(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


_NAME = {"type": "string", "minLength": 1, "description": "a registered model, or a setup"}
_OPTIONAL_NAME = {**_NAME, "type": ["string", "null"], "description": "without it, the active one"}
_WORD = {"type": "string", "minLength": 1, "maxLength": 256}
_PARAMETERS = r"([0-9]{1,5}(\.[0-9]{1,3})?[bBmM])"
_SIZE = rf"^({_PARAMETERS}|{_PARAMETERS}?\.\.{_PARAMETERS}?)?$"
_OPTIONAL_WORD = {**_WORD, "type": ["string", "null"]}
_LEVEL = {"type": ["integer", "null"], "description": "1 keeps the weights in RAM, 2 reads them again"}
_SEARCH = (
    {"name": "q", "required": True, "schema": {**_WORD, "description": "what to look for"}},
    {"name": "limit", "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}},
    {"name": "type", "schema": ref("ModelType")},
    {"name": "size", "schema": {"type": "string", "pattern": _SIZE, "description": "parameters: 7b..14b, ..4b, 8b"}},
    {"name": "licence", "schema": {**_WORD, "description": "as the hub names it, or open: any that allows all use"}},
    {"name": "gated", "schema": {"type": "boolean"}},
)
_SWAPS = ({"name": "limit", "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 20}},)

_LEASE = _body(
    vram={**_OPTIONAL_WORD, "description": "like 10G; without it, the whole of one GPU"},
    gpu={"type": ["integer", "string", "null"], "description": "its index or UUID; without it, any"},
    name={**_OPTIONAL_WORD, "description": "without it, that of the program"},
    program={**_OPTIONAL_WORD, "description": "what it is for, for people"},
    pid={
        "type": ["integer", "null"],
        "minimum": 1,
        "description": "it ends with this process of the gateway's machine",
    },
    seconds={"type": ["number", "null"], "exclusiveMinimum": 0, "description": "it ends after that time"},
    now={"type": "boolean", "description": "cut running responses of the models that leave"},
    unload_pinned={"type": "boolean", "description": "unload pinned models, too"},
)

# Each route has an entry here; its record, if it has one, is in schemas.py.
OPERATIONS = (
    Operation("GET", "/health", "Whether the gateway answers", ref("Health")),
    Operation("GET", "/status", "What runs, sleeps, starts and has failed", ref("Status")),
    Operation(
        "GET",
        "/models",
        "Every registered model, and every setup",
        array({"anyOf": [ref("Model"), ref("Setup")]}),
    ),
    Operation("GET", "/resources", "Memory of the GPUs and of the machine", ref("Resources")),
    Operation("GET", "/resources/history", "The same over the last hour", ref("History")),
    Operation("GET", "/queue", "Which requests wait for which model, and which are answered", ref("Queue")),
    Operation("GET", "/swaps", "The newest swaps and their phases, the newest last", array(ref("Swap")), query=_SWAPS),
    Operation("GET", "/metrics", "For Prometheus", TEXT, content_type="text/plain"),
    Operation("GET", "/events", "What happens, as it happens; without an end", TEXT, content_type=EVENT_STREAM),
    Operation(
        "POST",
        "/models/activate",
        "Make a model resident; with `now`, cut running responses of the models that leave",
        _ACTIVATED,
        _body(("model",), model=_NAME, now=_NOW),
    ),
    Operation(
        "POST",
        "/switch",
        "The same, as {model_id}",
        _ACTIVATED,
        _body(("model_id",), model_id=_NAME, now=_NOW),
    ),
    Operation(
        "POST",
        "/models/sleep",
        "Free a model's memory on its devices: it sleeps in RAM if its engine can",
        {"allOf": [_DONE, record(gone=array(TEXT))]},
        _body(model=_OPTIONAL_NAME, level=_LEVEL, now=_NOW),
    ),
    Operation("POST", "/models/stop", "End a model's engine", _DONE, _body(model=_OPTIONAL_NAME)),
    Operation("GET", "/leases", "The leases: memory that other programs than models have", array(ref("Lease"))),
    Operation(
        "POST",
        "/leases",
        "Keep memory for another program; the answer comes when it is free",
        {"allOf": [ref("Lease"), record(unloaded=array(TEXT))]},
        _LEASE,
        status=201,
    ),
    Operation("GET", "/leases/{name}", "One of them", ref("Lease")),
    Operation("DELETE", "/leases/{name}", "End a lease; models that were unloaded for it are restored", ref("Lease")),
    Operation("GET", "/hf/search", "Look for models on the Hugging Face hub", array(ref("HubModel")), query=_SEARCH),
    Operation(
        "POST",
        "/hf/download",
        "Download a model and register it; the answer is a job",
        ref("Job"),
        _body(("repo",), repo=_WORD, file=_OPTIONAL_WORD, revision=_OPTIONAL_WORD),
        status=202,
    ),
    Operation("GET", "/hf/downloads", "Every download since the gateway started", array(ref("Job"))),
    Operation("GET", "/hf/downloads/{id}", "How far a download is", ref("Job")),
    Operation("DELETE", "/hf/downloads/{id}", "Cancel a download; what has come is kept", ref("Job")),
    Operation("GET", "/openapi.json", "This document", {"type": "object"}),
    Operation("GET", "/v1/models", "Every registered model, in OpenAI's form", ref("OpenAIModels")),
    Operation("GET", "/v1/models/{name}", "One of them", ref("OpenAIModel")),
)

# Passed through unread: the engine defines the bodies and responses.
ENGINE_PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/score",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/tokenize",
    "/v1/detokenize",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
)


def document() -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    for path in ENGINE_PATHS:
        paths[path] = {"post": _passed_through(path)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "mmd", "version": __version__, "description": "Local language models, one address for all."},
        "paths": paths,
        "components": {"schemas": schemas()},
    }


def _described(operation: Operation) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", operation.path)
    in_path = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    in_query = [{**parameter, "in": "query"} for parameter in operation.query]
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{operation.method.lower()}{re.sub(r'[^a-z0-9]+', '_', operation.path)}",
        "responses": {
            str(operation.status): {
                "description": "done",
                "content": {operation.content_type: {"schema": operation.answer}},
            },
            **_ERRORS,
        },
    }
    if in_path or in_query:
        described["parameters"] = in_path + in_query
    if operation.body is not None:
        described["requestBody"] = {
            "required": bool(operation.body["required"]),
            "content": {JSON: {"schema": operation.body}},
        }
    return described


def _passed_through(path: str) -> dict[str, Any]:
    body = {"type": "object", "properties": {"model": {"type": "string"}}}
    return {
        "summary": "Answered by the engine of the model that is named, or of the active one",
        "operationId": f"post{re.sub(r'[^a-z0-9]+', '_', path)}",
        "requestBody": {"content": {JSON: {"schema": body}, "multipart/form-data": {"schema": body}}},
        "responses": {
            "200": {"description": "the engine's answer", "content": {JSON: {}, "text/event-stream": {}}},
            **_ERRORS,
        },
    }


_ERRORS = {
    status: {"description": what, "content": {JSON: {"schema": ref("Error")}}}
    for status, what in (("4XX", "the request cannot be served"), ("5XX", "it failed, or is not possible now"))
}
