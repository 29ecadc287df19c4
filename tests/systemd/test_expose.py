"""Models on the internet: tunnels as units over the real user manager, and the requests that come through them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mmd.gateway.http.api_keys import KeyFile, Purpose
from mmd.paths import config_file, tunnel_file, tunnels_dir
from tests.fakes.cloudflared import install_fake_cloudflared, token
from tests.systemd.conftest import free_port
from tests.systemd.world import REPOSITORY, World, run_mmd, wait_for


@pytest.fixture
def edge(world: World, fake_llama_server: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the fake internet's names; cloudflared is on PATH."""
    install_fake_cloudflared(fake_llama_server.parent)
    folder = Path(str(tmp_path_factory.mktemp("edge")))
    world.manager.systemctl("set-environment", f"MMD_FAKE_EDGE={folder}")
    yield folder
    world.manager.systemctl("unset-environment", "MMD_FAKE_EDGE")


@pytest.fixture
def key() -> str:
    return KeyFile().add("friend", Purpose.MANAGEMENT)


def _expose(*words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mmd", "expose", *words]
    return subprocess.run(
        command, cwd=REPOSITORY, input=said, capture_output=True, text=True, check=False, timeout=60, env=os.environ
    )


def _from_outside(edge: Path, name: str, key: str) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=str(edge / name))
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(transport=transport, base_url=f"http://{name}", headers=headers, timeout=30)


def _state(world: World, name: str) -> str:
    return world.manager.systemctl("is-active", f"mmd-tunnel@{name}.service").strip()


def _enabled(world: World, name: str) -> str:
    return world.manager.systemctl("is-enabled", f"mmd-tunnel@{name}.service").strip()


def _command_line(world: World, name: str) -> list[str]:
    main_pid = world.manager.systemctl("show", "--property=MainPID", "--value", f"mmd-tunnel@{name}.service").strip()
    return Path(f"/proc/{main_pid}/cmdline").read_text().split("\0")


def _listed() -> list[dict[str, Any]]:
    done = _expose("--json")
    assert done.returncode == 0, done.stderr
    listed: list[dict[str, Any]] = json.loads(done.stdout)
    return listed


async def test_exposed_model_answers_the_world_and_nothing_else_does(
    world: World, installed: str, edge: Path, key: str
) -> None:
    world.add("a", "b.1")
    done = _expose("b.1")
    assert done.returncode == 0, done.stderr
    url = done.stdout.strip()
    name = url.removeprefix("https://")
    assert name.endswith(".trycloudflare.com")
    async with _from_outside(edge, name, key) as world_wide:
        listed = (await world_wide.get("/v1/models")).json()["data"]
        assert [model["id"] for model in listed] == ["b.1"]
        for asked in ({}, {"model": "b.1"}):
            answer = await world_wide.post("/v1/chat/completions", json=asked | {"messages": []})
            assert (answer.status_code, answer.json()["model"]) == (200, "b.1")
        refused = await world_wide.post("/v1/chat/completions", json={"model": "a", "messages": []})
        assert (refused.status_code, refused.json()["error"]["source"]) == (404, "mmd")
        for path in ("/", "/status", "/metrics", "/models"):
            assert (await world_wide.get(path)).status_code == 404
        assert (await world_wide.post("/models/stop", json={})).status_code == 404
        for host in ("localhost", "127.0.0.1", "a.exposed.mmd.internal"):
            assert (await world_wide.get("/status", headers={"Host": host})).status_code == 404
    async with _from_outside(edge, name, "") as stranger:
        assert (await stranger.get("/v1/models")).status_code == 401
    async with httpx.AsyncClient(base_url=installed, headers={"Authorization": f"Bearer {key}"}) as here:
        status = (await here.get("/status")).json()
    assert (status["active"], status["exposed"]) == ("b.1", [{"id": "b.1", "url": url}])
    assert f"b.1 is exposed: {url}" in run_mmd("status").stdout


def _define(world: World, *names: str, expose: str) -> None:
    """Define the setup rag, whose models fit beside each other."""
    settings = config_file().read_text().replace('residency = "one"', 'residency = "many"')
    config_file().write_text(f'{settings}\n[setups.rag]\nmodels = {list(names)}\nexpose = ["{expose}"]\n')


@pytest.mark.parametrize("by_gateway", [True, False], ids=["gateway", "command"])
async def test_setup_exposes_its_models_while_it_is_up(
    world: World, installed: str, edge: Path, key: str, *, by_gateway: bool
) -> None:
    world.add("a", "b")
    _define(world, "a", "b", expose="a")
    if by_gateway:  # it starts at its first connection
        async with httpx.AsyncClient(base_url=installed) as here:
            await here.get("/health")
    done = run_mmd("activate", "rag")
    assert done.returncode == 0, done.stderr
    (open_tunnel,) = _listed()
    assert (open_tunnel["id"], open_tunnel["state"], open_tunnel["lasting"]) == ("a", "open", False)
    name = open_tunnel["url"].removeprefix("https://")
    async with _from_outside(edge, name, key) as world_wide:
        answer = await world_wide.post("/v1/chat/completions", json={"messages": []})
        assert (answer.status_code, answer.json()["model"]) == (200, "a")
        assert (await world_wide.post("/v1/chat/completions", json={"model": "b", "messages": []})).status_code == 404
    assert run_mmd("activate", "rag").returncode == 0
    assert _listed() == [open_tunnel], "the same tunnel"
    slept = run_mmd("sleep", "rag", *([] if by_gateway else ["--now"]))
    assert slept.returncode == 0, slept.stderr
    assert _listed() == []


async def test_setup_leaves_a_hostname_of_its_own_to_the_user(
    world: World, installed: str, edge: Path, key: str
) -> None:
    world.add("a", "b")
    _define(world, "a", "b", expose="a")
    assert _expose("a", "--at", "llm.example.org", said=token("t1")).returncode == 0
    assert run_mmd("activate", "rag").returncode == 0
    assert run_mmd("stop", "rag").returncode == 0
    assert [(one["id"], one["state"], one["lasting"]) for one in _listed()] == [("a", "open", True)]


def test_exposing_setup_needs_a_key_before_anything_is_loaded(world: World, installed: str, edge: Path) -> None:
    world.add("a", "b")
    _define(world, "a", "b", expose="a")
    refused = run_mmd("activate", "rag")
    assert (refused.returncode, "no API keys" in refused.stderr) == (2, True)
    assert not world.events("load-begin")


async def test_answer_is_streamed_through_the_tunnel(world: World, installed: str, edge: Path, key: str) -> None:
    world.add("a", load_seconds=2.5)  # longer than the gateway's first comment
    name = _expose("a").stdout.strip().removeprefix("https://")
    question = {"model": "a", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    async with (
        _from_outside(edge, name, key) as world_wide,
        world_wide.stream("POST", "/v1/chat/completions", json=question) as answer,
    ):
        lines = [line async for line in answer.aiter_lines() if line]
    assert lines[0].startswith(": waiting for a")  # Cloudflare drops a response that is silent for 100 s
    assert lines[-1] == "data: [DONE]"


async def test_last_key_that_goes_closes_the_door(world: World, installed: str, edge: Path, key: str) -> None:
    world.add("a")
    name = _expose("a").stdout.strip().removeprefix("https://")
    assert run_mmd("key", "remove", "friend").returncode == 0
    async with _from_outside(edge, name, key) as world_wide, httpx.AsyncClient(base_url=installed) as here:
        assert (await here.get("/v1/models")).status_code == 200
        assert (await world_wide.get("/v1/models")).status_code == 401


def test_without_a_key_nothing_is_exposed(world: World, installed: str, edge: Path) -> None:
    world.add("a")
    done = _expose("a")
    assert done.returncode == 2
    assert "mmd key add NAME" in done.stderr.splitlines()[1]
    assert _state(world, "a") == "inactive"


def test_quick_tunnel_is_not_reopened_after_a_reboot(world: World, installed: str, edge: Path, key: str) -> None:
    world.add("a")
    url = _expose("a").stdout.strip()
    assert (_state(world, "a"), _enabled(world, "a")) == ("active", "disabled")
    words = _command_line(world, "a")
    assert words[words.index("--url") + 1] == installed  # not the default
    assert words[words.index("--http-host-header") + 1] == "a.exposed.mmd.internal"
    assert words[words.index("--config") + 1] == "/dev/null"
    assert _expose("a").stdout.strip() == url  # the tunnel is open
    assert _listed() == [{"id": "a", "state": "open", "url": url, "lasting": False}]
    assert _expose("--off", "a").returncode == 0
    assert (_state(world, "a"), _listed()) == ("inactive", [])
    assert list(tunnels_dir().glob("*")) == []


async def test_tunnel_with_a_name_is_kept(world: World, installed: str, edge: Path, key: str) -> None:
    world.add("a")
    done = _expose("a", "--at", "llm.example.org", said=token("uuid-1"))
    assert (done.returncode, done.stdout) == (0, "https://llm.example.org\n"), done.stderr
    assert _enabled(world, "a") == "enabled"
    assert tunnel_file("a").stat().st_mode & 0o777 == 0o600
    assert token("uuid-1") not in _command_line(world, "a")
    async with _from_outside(edge, "uuid-1", key) as world_wide:
        assert (await world_wide.get("/v1/models")).status_code == 200
    world.manager.systemctl("stop", "mmd-tunnel@a.service")
    assert _listed() == [{"id": "a", "state": "closed", "url": None, "lasting": True}]
    assert _expose("a").stdout == "https://llm.example.org\n"
    assert run_mmd("expose", "--off").returncode == 0
    assert (_state(world, "a"), _enabled(world, "a"), tunnel_file("a").exists()) == ("inactive", "disabled", False)


def test_tunnel_that_has_lost_its_name_is_not_opened_by_another(
    world: World, installed: str, edge: Path, key: str
) -> None:
    world.add("a")
    assert _expose("a", "--at", "llm.example.org", said=token("uuid-5")).returncode == 0
    tunnel_file("a").unlink()
    world.manager.systemctl("restart", "mmd-tunnel@a.service")
    assert _listed() == [{"id": "a", "state": "opening", "url": None, "lasting": False}]
    assert list(edge.iterdir()) == []
    assert run_mmd("expose", "--off", "a").returncode == 0
    assert (_state(world, "a"), _enabled(world, "a")) == ("inactive", "disabled")


@pytest.mark.parametrize(("hostname", "said"), [("llm.example.org", "no token"), ("x y", token("t")), ("-a.b", "")])
def test_name_or_token_that_is_none(
    world: World, installed: str, edge: Path, key: str, hostname: str, said: str
) -> None:
    world.add("a")
    assert _expose("a", f"--at={hostname}", said=said).returncode == 2
    assert not tunnel_file("a").exists()


def test_tunnel_ends_with_the_gateways_socket(world: World, installed: str, edge: Path, key: str) -> None:
    """Another program may listen there next."""
    world.add("a")
    assert _expose("a").returncode == 0
    world.manager.systemctl("stop", "mmd.socket")
    assert _state(world, "a") == "inactive"


def test_tunnel_goes_where_the_gateway_does(world: World, installed: str, edge: Path, key: str) -> None:
    world.add("a")
    assert _expose("a", "--at", "llm.example.org", said=token("uuid-4")).returncode == 0
    settings = Path(os.environ["XDG_CONFIG_HOME"]) / "mmd/mmd.toml"
    port = installed.rpartition(":")[2]
    another = free_port()
    settings.write_text(settings.read_text().replace(f":{port}", f":{another}", 1))
    world.manager.systemctl("restart", "mmd-tunnel@a.service")
    words = _command_line(world, "a")
    assert words[words.index("--url") + 1] == installed  # mmd.toml takes effect at mmd install
    assert run_mmd("install").returncode == 0
    wait_for(lambda: _state(world, "a") == "active", what="the tunnel")
    words = _command_line(world, "a")
    assert words[words.index("--url") + 1] == f"http://127.0.0.1:{another}"


def test_cloudflared_that_dies_is_back(world: World, installed: str, edge: Path, key: str) -> None:
    world.add("a")
    first = _expose("a").stdout.strip()
    drop_in = "/mmd-tunnel@.service.d"
    folder = Path(world.manager.environment["XDG_RUNTIME_DIR"] + "/systemd/user" + drop_in)
    folder.mkdir(parents=True)
    (folder / "soon.conf").write_text("[Service]\nRestartSec=0\n")
    world.manager.systemctl("daemon-reload")
    world.manager.systemctl("kill", "--signal=SIGKILL", "mmd-tunnel@a.service")
    wait_for(lambda: _listed()[0]["url"] not in (None, first), what="another address")
    (folder / "soon.conf").unlink()
    world.manager.systemctl("daemon-reload")


def test_cloudflared_that_cannot_connect_is_left_alone(world: World, installed: str, edge: Path, key: str) -> None:
    world.add("a")
    (edge / "unreachable").touch()
    done = _expose("a")
    assert done.returncode == 1
    assert "opened: failed to request quick Tunnel" in done.stderr and "name resolution" in done.stderr
    assert _listed() == []
    assert _state(world, "a") == "inactive"


def test_tunnel_that_is_not_waited_for_any_more_does_not_open(
    world: World, installed: str, edge: Path, key: str
) -> None:
    world.add("a")
    (edge / "silent").touch()
    command = [sys.executable, "-m", "mmd", "expose", "a"]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, env=os.environ) as asking:
        wait_for(lambda: _state(world, "a") == "activating", what="the beginning")
        asking.send_signal(signal.SIGINT)
        asking.communicate(timeout=60)
    wait_for(lambda: _state(world, "a") == "inactive", what="the end of the tunnel")


def test_token_that_cloudflared_does_not_take_is_said(world: World, installed: str, edge: Path, key: str) -> None:
    world.add("a")
    done = _expose("a", "--at", "llm.example.org", said=token("revoked"))
    assert done.returncode == 1
    assert "opened: Unauthorized: Invalid tunnel secret" in done.stderr
    assert _listed() == []
    assert (_enabled(world, "a"), tunnel_file("a").exists()) == ("disabled", False)


async def test_token_that_is_not_taken_leaves_the_one_that_is(
    world: World, installed: str, edge: Path, key: str
) -> None:
    world.add("a")
    assert _expose("a", "--at", "llm.example.org", said=token("uuid-6")).returncode == 0
    assert _expose("a", "--at", "another.example.org", said=token("revoked")).returncode == 1
    wait_for(lambda: _state(world, "a") == "active", what="the tunnel")
    assert _listed() == [{"id": "a", "state": "open", "url": "https://llm.example.org", "lasting": True}]
    assert _enabled(world, "a") == "enabled"
    async with _from_outside(edge, "uuid-6", key) as world_wide:
        assert (await world_wide.get("/v1/models")).status_code == 200


def test_without_cloudflared_it_says_where_to_get_it(world: World, installed: str, key: str) -> None:
    world.add("a")
    done = _expose("a")
    assert done.returncode == 5
    assert "cloudflared" in done.stderr.splitlines()[0] and "apt install" in done.stderr.splitlines()[1]


def test_removed_model_is_not_exposed_any_more(world: World, installed: str, edge: Path, key: str) -> None:
    world.add("a", "b")
    assert _expose("a", "--at", "llm.example.org", said=token("uuid-2")).returncode == 0
    assert _expose("b").returncode == 0
    assert run_mmd("remove", "a").returncode == 0
    assert [one["id"] for one in _listed()] == ["b"]
    assert (_state(world, "a"), _enabled(world, "a"), tunnel_file("a").exists()) == ("inactive", "disabled", False)


def test_unit_of_a_model_that_has_vanished_is_not_tried_again(
    world: World, installed: str, edge: Path, key: str
) -> None:
    """For example, the registry was restored from an older copy."""
    world.manager.systemctl("start", "mmd-tunnel@gone.service")
    assert _state(world, "gone") == "failed"


def test_removal_of_the_units_ends_all_tunnels(world: World, installed: str, edge: Path, key: str) -> None:
    world.add("a", "b")
    assert _expose("a").returncode == 0
    assert _expose("b", "--at", "llm.example.org", said=token("uuid-3")).returncode == 0
    assert run_mmd("install", "--remove").returncode == 0
    assert (_state(world, "a"), _state(world, "b"), tunnel_file("b").exists()) == ("inactive", "inactive", False)
    assert _expose("a").returncode == 2  # the units are not there
