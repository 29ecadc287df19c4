"""Tunnels without systemd: cloudflared's command line and environment, and named tunnels."""

from __future__ import annotations

import pytest

from mmd.control.tunnel import cloudflared, named_tunnel
from mmd.control.tunnel.named_tunnel import NamedTunnel
from mmd.errors import MmdError, WrongUsage
from mmd.paths import tunnel_file
from mmd.units.names import tunnel_of, tunnel_unit
from tests.fakes.cloudflared import parse, token
from tests.unit.cli.test_cli import mmd, refused


@pytest.mark.parametrize("is_named", [False, True])
def test_cloudflared_accepts_the_command(is_named: bool) -> None:
    words = cloudflared.command("/usr/bin/cloudflared", "a", "127.0.0.1:8000", is_named=is_named)
    options, runs = parse(list(words[1:]))
    assert runs is is_named
    assert options["--url"] == "http://127.0.0.1:8000"
    assert options["--http-host-header"] == "a.exposed.mmd.internal"


def test_environment_of_another_tunnel_is_dropped() -> None:
    """cloudflared reads many options from TUNNEL_ variables."""
    ours = {
        "PATH": "/bin",
        "TUNNEL_TOKEN": "of another",
        "TUNNEL_UNIX_SOCKET": "/run/x",
        "TUNNEL_HOSTNAME": "x.example",
    }
    assert cloudflared.environment(ours, None) == {"PATH": "/bin"}
    assert cloudflared.environment(ours, "ours") == {"PATH": "/bin", "TUNNEL_TOKEN": "ours"}


@pytest.mark.parametrize("text", ["", "x", "e30=", "W10=", "!" + token("t"), token("t") + "\n"])
def test_invalid_token(text: str) -> None:
    assert cloudflared.is_token(token("t"))
    assert not cloudflared.is_token(text)


@pytest.mark.parametrize(
    "hostname",
    ["", "localhost", "x y.org", "-x.example.org", "x..org", "https://x.org", "x.org/", "x.org:443", "a\n.org"],
)
def test_invalid_host_name(hostname: str) -> None:
    with pytest.raises(WrongUsage, match="is not a host name"):
        NamedTunnel.parse(hostname, token("t"))


def test_file_is_private() -> None:
    assert NamedTunnel.load("qwen2.5-7b") is None
    assert named_tunnel.model_ids() == frozenset()
    kept = NamedTunnel.parse("LLM.example.org", token("t"))
    kept.save("qwen2.5-7b")
    assert NamedTunnel.load("qwen2.5-7b") == kept
    assert named_tunnel.model_ids() == {"qwen2.5-7b"}
    file = tunnel_file("qwen2.5-7b")
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    named_tunnel.delete("qwen2.5-7b")
    assert NamedTunnel.load("qwen2.5-7b") is None


@pytest.mark.parametrize("text", ["[", "", 'hostname = "llm.example.org"', 'hostname = "llm.example.org"\ntoken = "x"'])
def test_damaged_file_is_reported(text: str) -> None:
    NamedTunnel.parse("llm.example.org", token("t")).save("a")
    tunnel_file("a").write_text(text)
    with pytest.raises(WrongUsage, match="damaged"):
        NamedTunnel.load("a")


def test_cloudflared_without_a_url() -> None:
    with pytest.raises(MmdError, match="did not report"):
        cloudflared.quick_url(2**22)  # above the largest process id


def test_unit_is_the_models() -> None:
    assert tunnel_unit("qwen2.5-7b") == "mmd-tunnel@qwen2.5-7b.service"
    assert tunnel_of("mmd-tunnel@qwen2.5-7b.service") == "qwen2.5-7b"


@pytest.mark.parametrize("words", [("--at", "llm.example.org"), ("--off", "--at", "llm.example.org", "a")])
def test_conflicting_options(words: tuple[str, ...]) -> None:
    _, hint = refused(mmd("expose", *words), 2)
    assert hint == "mmd expose --help"


def test_tunnel_command_is_hidden() -> None:
    verbs = {line.split()[0] for line in mmd("--help").stdout.splitlines() if line.startswith("  ")}
    assert "expose" in verbs and "tunnel" not in verbs
