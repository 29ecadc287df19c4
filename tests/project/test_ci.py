"""The hosted CI and the git hooks: valid, and in step with the project."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import yaml

from tests.documents import ROOT


def _read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


def test_every_python_of_the_classifiers_is_tested() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    versions = [match[1] for text in classifiers if (match := re.fullmatch(r".* :: (3\.\d+)", text))]
    jobs = _read(".github/workflows/ci.yml")["jobs"]
    for job in ("test", "wheel"):
        assert jobs[job]["strategy"]["matrix"]["python"] == versions


def test_ci_calls_targets_of_the_makefile() -> None:
    steps = [step for job in _read(".github/workflows/ci.yml")["jobs"].values() for step in job["steps"]]
    targets = {match for step in steps for match in re.findall(r"^make (\S+)", step.get("run", ""))}
    assert targets == {"test", "deb"}
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert all(f"\n{target}:" in makefile for target in targets)


def test_hooks_run_programs_of_the_virtual_environment() -> None:
    (repo,) = _read(".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local"
    for hook in repo["hooks"]:
        assert hook["language"] == "system"
        assert re.match(r"\.venv/bin/(ruff|mypy|python -m tests\.\w+)", hook["entry"]), hook
