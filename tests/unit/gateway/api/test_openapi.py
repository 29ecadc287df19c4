"""The API's description: complete, and true of what the gateway answers, whatever it is asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from mmd.control.models.hub_hit import HubHit
from mmd.control.models.search import SearchHit, hub_hit
from mmd.errors import NoSuchRepository
from mmd.gateway.api.download_jobs import Downloads
from mmd.gateway.api.hub_process import Registered, Selected
from mmd.gateway.api.openapi import ENGINE_PATHS, EVENT_STREAM, OPERATIONS, document
from mmd.gateway.api.routes import application
from mmd.gateway.gateway import Gateway
from mmd.plan.recommend import Assessed, RunsOn
from mmd.registry.hub.progress import Progress
from mmd.registry.hub.search import Result
from mmd.registry.offer import Base, HubModel
from mmd.registry.record import Format, ModelType
from tests.gateway_peer import MemoryModels, harness
from tests.openapi_records import differences
from tests.page import scene

_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


class MemoryHub:
    """A hub where every repository has one model, but for those whose name begins with "no"."""

    async def search(self, query: Mapping[str, Any]) -> list[HubHit]:
        offer = HubModel("tiny-Q4_K_M.gguf", Format.GGUF, 1000)
        base = Base(ModelType.CHAT)
        result = Result("", base, ("gguf",), (offer,), "mit", gated=False, downloads=1, likes=2, updated=None, tags=())
        taken = Assessed(offer, 2000, 3000, RunsOn.GPU, 4.85)
        hits = (
            SearchHit(replace(result, id=f"me/{number}"), taken, "the only one") for number in range(query["limit"])
        )
        return [hub_hit(hit) for hit in islice(hits, 3)]

    async def select(self, repository: str, file: str | None, revision: str | None) -> Selected:
        if repository.startswith("no"):
            raise NoSuchRepository(f"no {repository}", hint="hf auth login")
        return Selected(repository, revision or "main", "c0ffee", file or "tiny.gguf", 100, 1)

    async def download(self, selected: Selected) -> AsyncGenerator[Progress | Registered]:
        yield Progress(50, 100, 0, 1)
        yield Registered("tiny")


@pytest.fixture
def url() -> Iterator[str]:
    """A gateway with two models, in a thread of its own: schemathesis asks from this one."""
    address: list[str] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    end = asyncio.Event()

    async def serve() -> None:
        async with harness("a", "b", hub=MemoryHub()) as running:
            address.append(running.url)
            ready.set()
            await end.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(15)
    yield address[0]
    loop.call_soon_threadsafe(end.set)
    thread.join()
    loop.close()


def served() -> set[tuple[str, str]]:
    models = MemoryModels({})
    hub = MemoryHub()
    gateway = Gateway(models, hub=hub)
    app = application(models, gateway.scheduler, gateway.observer, hub, Downloads(hub, gateway.feed))
    return {
        (method, getattr(route, "path", "").replace(":path}", "}"))
        for route in app.routes
        if getattr(route, "include_in_schema", True)  # the page is for browsers
        for method in getattr(route, "methods", None) or ()
        if method != "HEAD"  # goes with every GET
    }


def test_openapi_describes_exactly_the_served_routes() -> None:
    assert served() == {(operation.method, operation.path) for operation in OPERATIONS}


def test_paths_of_the_engines_are_not_ours() -> None:
    assert all(path.startswith("/v1/") for path in ENGINE_PATHS)
    assert not set(ENGINE_PATHS) & {operation.path for operation in OPERATIONS}


@pytest.mark.parametrize(
    ("path", "record"),
    [
        ("/status", scene.status()),
        ("/models", scene.models()),
        ("/queue", scene.queue()),
        ("/resources", scene.resources()),
        ("/resources/history", scene.history()),
        ("/swaps", scene.swaps()),
        ("/hf/downloads", scene.downloads()),
    ],
)
def test_page_is_tested_with_records_as_they_are(path: str, record: Any) -> None:
    assert differences(path, record) == []


_SCHEMA = schemathesis.openapi.from_dict(document())
_WITH_AN_END = [operation for operation in OPERATIONS if operation.content_type != EVENT_STREAM]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", _WITH_AN_END, ids=lambda operation: f"{operation.method} {operation.path}")
def test_answers_are_as_described(url: str, operation: Any, mode: GenerationMode) -> None:
    described = _SCHEMA[operation.path][operation.method]
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
        return  # there is nothing to be wrong

    @given(case=described.as_strategy(generation_mode=mode))
    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(base_url=url, checks=_CHECKS, timeout=15)

    ask()
