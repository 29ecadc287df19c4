"""The records of the API as JSON schemas. Sizes in bytes, times in seconds."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def record(optional: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """An object that always has these keys, but for `optional` ones; new ones may come with new versions."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def or_null(kind: str) -> Schema:
    return {"type": [kind, "null"]}


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SECONDS: Schema = {"type": "number", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
TERMS: Schema = {"enum": ["open", "conditions", "non-commercial", "unknown"]}
GIB: Schema = {"type": "number", "minimum": 0, "description": "GiB"}

TYPE: Schema = {"enum": ["chat", "vision", "completion", "embedding", "reranker", "classifier"]}
_MEMORY = record(used=GIB, total=GIB, used_bytes=COUNT, total_bytes=COUNT)
_SAMPLE = record(at=TEXT, vram_used_bytes=COUNT, vram_total_bytes=COUNT, ram_used_bytes=COUNT, ram_total_bytes=COUNT)
_TURN = record(model=TEXT, waiting=COUNT, waited_seconds=SECONDS, expected_seconds=or_null("number"))
_FAILURE = record(
    ("engine_lines",), engine_lines=array(TEXT), message=TEXT, type=TEXT, code=TEXT, hint=TEXT, source={"const": "mmd"}
)

SCHEMAS: dict[str, Schema] = {
    "Health": record(status={"const": "ok"}),
    "Status": record(
        active=or_null("string"),
        resident=array(TEXT),
        sleeping=array(record(id=TEXT, level=COUNT, ram_bytes=COUNT, wake_seconds=or_null("number"))),
        starting=array(record(id=TEXT, seconds=SECONDS, expected_seconds=or_null("number"))),
        failed=array(record(id=TEXT, reason=TEXT)),
        exposed=array(record(id=TEXT, url=TEXT)),
        resources=ref("Resources"),
        away=array(TEXT),
    ),
    "Model": record(
        id=TEXT,
        aliases=array(TEXT),
        type=TYPE,
        engine=TEXT,
        format={"enum": ["gguf", "safetensors"]},
        quant=TEXT,
        vram=GIB,
        vram_bytes=COUNT,
        context=COUNT,
        status={"enum": ["active", "resident", "sleeping", "starting", "failed", "absent"]},
        startup={"enum": ["disabled", "sleep", "active"]},
        idle_seconds=or_null("number") | {"description": "since its last answer; null where the gateway knows of none"},
        source=TEXT,
        licence=TEXT,
        terms=TERMS,
        path=TEXT,
    ),
    "Resources": record(
        vram=_MEMORY,
        ram=_MEMORY,
        gpus=array(record(name=TEXT, uuid=TEXT, used_bytes=COUNT, total_bytes=COUNT)),
    ),
    "History": record(interval_seconds=SECONDS, samples=array(_SAMPLE)),
    "Queue": record(turns=array(_TURN), in_flight=array(record(model=TEXT, requests=COUNT))),
    "Swap": record(
        at=TEXT,
        model=TEXT,
        evicted=or_null("string"),
        outcome={"enum": ["resident", "failed", "superseded", "away"]},
        why=TEXT,
        cause=TEXT,
        seconds=SECONDS,
        phases={"type": "object", "additionalProperties": SECONDS},
        engine_lines=array(TEXT),
    ),
    "HubModel": record(
        id=TEXT,
        type=TYPE,
        parameters=COUNT,
        context=COUNT,
        formats=array({"enum": ["gguf", "safetensors"]}),
        recommended_file=or_null("string"),
        file_bytes=COUNT,
        needs_bytes=COUNT,
        runs={"enum": ["gpu", "cpu", "partly", "no"]},
        why=TEXT,
        licence=TEXT,
        terms={"enum": ["open", "conditions", "non-commercial", "unknown"]},
        gated=FLAG,
        downloads=COUNT,
        likes=COUNT,
        updated=or_null("string"),
        tags=array(TEXT),
    ),
    "Job": record(
        optional=("error", "model"),
        id=TEXT,
        repo=TEXT,
        file=TEXT,
        revision=TEXT,
        state={"enum": ["queued", "running", "done", "failed", "cancelled"]},
        done_bytes=COUNT,
        total_bytes=COUNT,
        files_done=COUNT,
        files_total=COUNT,
        rate_bytes_per_second=or_null("number"),
        remaining_seconds=or_null("number"),
        files=array(record(name=TEXT, done_bytes=COUNT, total_bytes=COUNT)),
        note=TEXT,
        error=_FAILURE,
        model=TEXT,
    ),
    "Error": record(error=_FAILURE),
    "OpenAIModel": record(
        id=TEXT, object={"const": "model"}, created=COUNT, owned_by=TEXT, status=TEXT, aliases=array(TEXT)
    ),
    "OpenAIModels": record(object={"const": "list"}, data=array(ref("OpenAIModel"))),
}
