"""The files in contrib parse, and name things that exist."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmd.cli.verbs import mmd as cli
from mmd.settings import read_settings
from tests import alerts, dashboard
from tests.unit.units.test_spec import verify

ROOT = Path(__file__).parents[2]
CONTRIB = ROOT / "contrib"
TEXTS = sorted(file for file in CONTRIB.glob("[!_]*/*") if file.name != "mmd.json")  # not __pycache__
READMES = sorted(CONTRIB.glob("*/README.md"))


def _yaml(name: str) -> Any:
    return yaml.safe_load((CONTRIB / name).read_text("utf-8"))


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: str(file.relative_to(CONTRIB)))
def test_verbs_are_those_of_mmd(file: Path) -> None:
    commands = re.findall(r"(?:^ {4}|[`\"|:] ?|; )mmd ([a-z]+)\b", file.read_text("utf-8"), re.MULTILINE)
    assert set(commands) <= cli.commands.keys()


@pytest.mark.parametrize("file", READMES, ids=lambda file: file.parent.name)
def test_files_that_a_readme_names_are_beside_it(file: Path) -> None:
    text = file.read_text("utf-8")
    installed = {word for line in re.findall(r" install -D?m\d+ ([^#\n]*)", text) for word in line.split()}
    named = {word for word in installed if re.fullmatch(r"[\w-]+\.\w+", word)}
    links = {link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")}
    assert [name for name in named | links if not (file.parent / name).exists()] == []
    beside = {one.name for one in file.parent.iterdir()} - {"README.md"}
    assert [name for name in beside if name not in text] == []


# Open WebUI


def _open_webui() -> dict[str, str]:
    lines = (CONTRIB / "open-webui/open-webui.env").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_open_webui_reads_these_settings() -> None:
    recorded = (ROOT / "tests/open_webui_settings.txt").read_text("utf-8").partition("\n")[2].split()
    assert _open_webui().keys() <= set(recorded)


def test_open_webui_asks_the_gateway_where_it_is() -> None:
    mine, settings = _open_webui(), read_settings()
    assert mine["OPENAI_API_BASE_URLS"] == f"http://{settings.gateway.listen}/v1"
    assert mine["RAG_OPENAI_API_BASE_URL"] == f"http://{settings.gateway.embedding_listen}/v1"
    assert not any(value for name, value in mine.items() if "KEY" in name)


def test_systemd_has_nothing_to_say_about_open_webui(tmp_path: Path) -> None:
    text = (CONTRIB / "open-webui/open-webui.service").read_text("utf-8")
    readme = (CONTRIB / "open-webui/README.md").read_text("utf-8")
    assert "EnvironmentFile=%E/open-webui.env\n" in text and "~/.config/open-webui.env\n" in readme
    for socket in re.findall(r"^Wants=(.*)$", text, re.MULTILINE)[0].split():
        (tmp_path / socket).write_text((ROOT / "units" / socket).read_text("utf-8"), "utf-8")
    (tmp_path / "mmd.service").write_text("[Service]\nExecStart=/bin/true\n", "utf-8")
    # The program is not here, and systemd would report that.
    (tmp_path / "open-webui.service").write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text), "utf-8")
    verify(tmp_path, "open-webui.service")


# Prometheus and Grafana


@pytest.mark.parametrize("with_key", [False, True])
def test_prometheus_reads_the_gateway(with_key: bool) -> None:
    text = (CONTRIB / "prometheus/prometheus.yml").read_text("utf-8")
    if with_key:  # as the README says
        text, count = re.subn(r"(?m)^    # (authorization:|  )", r"    \1", text)
        assert count == 3
    document = yaml.safe_load(text)
    (job,) = document["scrape_configs"]
    assert job["job_name"] == "mmd"
    assert job["static_configs"] == [{"targets": [read_settings().gateway.listen]}]
    assert job.get("authorization", {}).keys() == ({"type", "credentials_file"} if with_key else set())
    assert all((CONTRIB / "prometheus" / name).exists() for name in document["rule_files"])


def test_alerts_are_promql_and_say_what_to_do() -> None:
    rules = alerts.rules()
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        assert dashboard.selected(rule["expr"]), rule
        assert rule["annotations"].keys() == {"summary", "what_to_do"}
        assert rule.keys() <= {"alert", "expr", "for", "annotations"}


def test_grafana_finds_the_dashboard_where_it_is_put() -> None:
    (provider,) = _yaml("grafana/mmd-dashboards.yml")["providers"]
    assert f"{provider['options']['path']}/" in (CONTRIB / "grafana/README.md").read_text("utf-8")
    (source,) = _yaml("grafana/mmd-datasource.yml")["datasources"]
    variables = json.loads((CONTRIB / "grafana/mmd.json").read_text("utf-8"))["templating"]["list"]
    assert source["type"] in [variable["query"] for variable in variables]


# Status lines


def test_waybar_shows_what_the_script_says() -> None:
    text = (CONTRIB / "status-line/waybar-module.jsonc").read_text("utf-8")
    module = json.loads(re.sub(r"(?m)^\s*//.*$", "", text))["custom/mmd"]
    script = (CONTRIB / "status-line/mmd-status-line").read_text("utf-8")
    classes = set(re.findall(r'class: "(\w+)"', script))
    assert module["format-icons"].keys() == classes
    style = (CONTRIB / "status-line/waybar-style.css").read_text("utf-8")
    assert set(re.findall(r"#custom-mmd\.(\w+)", style)) <= classes
    assert module["exec"].endswith("/mmd-status-line waybar") and module["return-type"] == "json"
    assert module["on-click"] == f"xdg-open http://{read_settings().gateway.listen}/"


def test_status_line_is_a_script_of_any_shell() -> None:
    script = CONTRIB / "status-line/mmd-status-line"
    assert script.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", str(script)], check=True, timeout=10)
