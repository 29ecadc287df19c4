"""Search the hub: results, order and messages, against the local fake hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mmd.cli.search import search as search_verb
from mmd.control.models.search import alternatives, hub_search
from mmd.errors import HubUnavailable, WrongUsage
from mmd.machine import Machine, load_machine
from mmd.registry.hub import api
from mmd.registry.hub.search import Query, search
from mmd.registry.hub.size import parse_size
from mmd.registry.record import Format
from tests.fakes.hub import FakeHub, FakeRepository, OnDisk, Refusal

_MACHINES = Path(__file__).parents[3] / "machines"
_8B = {"total": 8_190_000_000, "architecture": "qwen3", "context_length": 40_960}
_32B = {"total": 32_800_000_000, "architecture": "qwen3", "context_length": 40_960}
_APACHE = {"license": "apache-2.0"}


@pytest.fixture
def large(tmp_path: Path) -> Any:
    """Make sparse files of the given size in GB."""

    def make(**sizes_gb: float) -> dict[str, OnDisk]:
        return {f"model-{quant}.gguf": _sparse(tmp_path, gb) for quant, gb in sizes_gb.items()}

    return make


def _sparse(folder: Path, gb: float) -> OnDisk:
    path = folder / f"{gb}.gguf"
    with path.open("ab") as file:
        file.truncate(int(gb * 1e9))
    return OnDisk(path, f"{int(gb * 1000):064x}")


def machine(name: str = "rtx4070-12g") -> Machine:
    return load_machine(_MACHINES / f"{name}.json")


def run(*words: str) -> Result:
    return CliRunner().invoke(search_verb, [*words, "--machine", str(_MACHINES / "rtx4070-12g.json")])


def records(*words: str) -> list[dict[str, Any]]:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_best_result_comes_first(hub: FakeHub, large: Any) -> None:
    hub.repositories = {
        "a/Qwen3-8B-GGUF": FakeRepository(
            large(Q4_K_M=5.03, Q8_0=8.71, BF16=16.4), gguf=_8B, card=_APACHE, downloads=50
        ),
        "b/Qwen3-8B-GGUF": FakeRepository(large(Q4_K_M=5.03), gguf=_8B, downloads=40),
        "a/Qwen3-32B-GGUF": FakeRepository(large(Q4_K_M=19.8), gguf=_32B, downloads=900),
    }
    first, second, third = records("qwen3", "--all")
    assert (first["id"], first["recommended_file"], first["runs"]) == ("a/Qwen3-8B-GGUF", "model-Q8_0.gguf", "gpu")
    assert (first["licence"], first["terms"], first["parameters"]) == ("apache-2.0", "open", 8_190_000_000)
    assert first["needs_bytes"] > first["file_bytes"] == 8_710_000_000
    assert (second["id"], second["recommended_file"]) == ("b/Qwen3-8B-GGUF", "model-Q4_K_M.gguf")
    # By far the most popular, but slow on this machine.
    assert (third["id"], third["runs"]) == ("a/Qwen3-32B-GGUF", "partly")


def test_models_that_do_not_run_are_counted_only(hub: FakeHub, large: Any) -> None:
    hub.repositories = {
        "a/small-GGUF": FakeRepository(large(Q4_K_M=5.03), gguf=_8B),
        "a/small-huge-GGUF": FakeRepository(large(Q4_K_M=400), gguf={"total": 671_000_000_000}),
        "a/small-mlx": FakeRepository({"model.safetensors": b"x"}, tags=("mlx", "safetensors")),
        "a/small-lora": FakeRepository({"adapter.safetensors": b"x"}, tags=("peft", "safetensors")),
    }
    result = run("small")
    assert "a/small-GGUF" in result.stdout
    assert "huge" not in result.stdout
    assert "1 more does not fit on this machine. Show all: mmd search --all small" in result.stderr
    assert "1 MLX" in result.stderr
    assert "1 adapter" in result.stderr
    assert result.stderr.rstrip().endswith("Download the first: mmd pull a/small-GGUF")


def test_empty_search(hub: FakeHub) -> None:
    assert isinstance(run(" ").exception, WrongUsage)
    assert hub.asked == []


def test_no_result(hub: FakeHub) -> None:
    result = run("nothing", "at", "all")
    assert (result.exit_code, result.stdout) == (0, "")
    said, advice = result.stderr.splitlines()
    assert "'nothing at all'" in said
    assert advice == "Search for fewer words: mmd search nothing"
    assert records("nothing") == []


def test_no_result_of_the_type(hub: FakeHub, large: Any) -> None:
    hub.repositories["a/small-GGUF"] = FakeRepository(large(Q4_K_M=5.03), gguf=_8B)
    result = run("small", "gguf", "--size", "1b..3b", "--no-gated")
    assert result.stderr.splitlines()[1] == "Search without options: mmd search small gguf"


def test_no_result_runs(hub: FakeHub, large: Any) -> None:
    hub.repositories["a/huge-GGUF"] = FakeRepository(large(Q4_K_M=400), gguf={"total": 671_000_000_000})
    result = run("huge", "--licence", "open", "--size", "600b..")
    assert "mmd search --all" not in result.stderr  # no licence is known
    result = run("huge", "--size", "600b..")
    assert result.stderr == "1 does not fit on this machine. Show all: mmd search --all --size 600b.. huge\n"
    assert "a/huge-GGUF" in run("--all", "--size", "600b..", "huge").stdout


def test_table_on_a_terminal(hub: FakeHub, large: Any) -> None:
    hub.repositories = {
        "a/Qwen3-8B-GGUF": FakeRepository(
            large(Q4_K_M=5.03), gguf=_8B, card={"license": "cc-by-nc-4.0"}, gated=True, downloads=12_345
        )
    }
    heading, row = run("qwen").stdout.splitlines()
    assert heading.split() == ["REPOSITORY", "FILE", "TYPE", "SIZE", "NEEDS", "RUNS", "DOWNLOADS", "LICENCE"]
    for cell in ("Q4_K_M", "4.7 GiB", "≈ ", "on GPU", "non-commercial, gated", "12.3 k"):
        assert cell in row


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), {"a/one", "a/two", "a/three"}),
        (("--type", "embedding"), {"a/two"}),
        (("--licence", "open"), {"a/one"}),
        (("--licence", "gemma"), {"a/three"}),
        (("--no-gated",), {"a/one", "a/two"}),
        (("--gated",), {"a/three"}),
        (("--size", "7b..14b"), {"a/one"}),
        (("--size", "..1b"), {"a/two"}),
        (("--limit", "1"), {"a/three"}),
    ],
)
def test_filters(hub: FakeHub, large: Any, words: tuple[str, ...], wanted: set[str]) -> None:
    small = {"total": 100_000_000, "architecture": "bert", "context_length": 512}
    hub.repositories = {
        "a/one": FakeRepository(large(Q4_K_M=5.03), gguf=_8B, card=_APACHE, downloads=1),
        "a/two": FakeRepository(large(Q8_0=0.1), gguf=small, pipeline_tag="feature-extraction", downloads=2),
        "a/three": FakeRepository(large(Q4_K_M=2.5), card={"license": "gemma"}, gated=True, downloads=3),
    }
    assert {one["id"] for one in records("a/", *words)} == wanted


def test_alternatives_in_other_repositories(hub: FakeHub, large: Any) -> None:
    base = ("Qwen/Qwen3-8B",)
    hub.repositories = {
        "a/Qwen3-8B-GGUF": FakeRepository(large(BF16=16.4), gguf=_8B, base_models=base),
        "b/Qwen3-8B-GGUF": FakeRepository(large(Q4_K_M=5.03, Q8_0=8.71), gguf=_8B, base_models=base),
        "c/Other-8B-GGUF": FakeRepository(large(Q4_K_M=5.03), gguf=_8B, base_models=("c/Other",)),
    }
    (found,) = alternatives(api.read_repository("a/Qwen3-8B-GGUF"), machine())
    assert (found.name, found.weights_bytes) == ("b/Qwen3-8B-GGUF:model-Q8_0.gguf", 8_710_000_000)
    assert found.command == "mmd pull b/Qwen3-8B-GGUF:model-Q8_0.gguf"


def test_alternatives_while_the_hub_fails(hub: FakeHub, large: Any) -> None:
    """An estimate must not fail because its suggestions cannot be read."""
    hub.repositories["a/Qwen3-8B-GGUF"] = FakeRepository(large(Q8_0=8.71), gguf=_8B)
    looked = api.read_repository("a/Qwen3-8B-GGUF")
    hub.faults = [Refusal(503, on="/api/models")]
    assert alternatives(looked, machine()) == ()


def test_only_formats_of_installed_engines(hub: FakeHub, large: Any) -> None:
    both = {**large(Q4_K_M=5.03), "config.json": b"{}", "model.safetensors": bytes(5000)}
    hub.repositories = {
        "a/both": FakeRepository(both, tags=("gguf", "safetensors"), gguf=_8B),
        "a/weights": FakeRepository({"config.json": b"{}", "model.safetensors": bytes(5000)}, tags=("safetensors",)),
    }
    assert [one.id for one in search(Query("a/", 9, (Format.GGUF,))).results] == ["a/both"]
    assert {one.id for one in search(Query("a/", 9)).results} == {"a/both", "a/weights"}


def test_repository_tagged_with_one_format_and_holding_another(hub: FakeHub) -> None:
    weights = {"config.json": b"{}", "model.safetensors": bytes(5000)}
    hub.repositories = {"a/marked": FakeRepository(weights, tags=("gguf", "safetensors"))}
    assert hub_search(Query("a/", 9, (Format.GGUF,)), machine()).hits == ()


def test_each_repository_is_read_once(hub: FakeHub, large: Any) -> None:
    hub.repositories = {f"a/{number}": FakeRepository(large(Q8_0=0.1)) for number in range(12)}
    assert len(search(Query("a/", 5, (Format.GGUF,))).results) == 5
    assert len(hub.asked_for("GET", "/api/models/a/")) == 5


def test_hub_refusal_is_reported(hub: FakeHub) -> None:
    hub.refuse_with = 429
    with pytest.raises(HubUnavailable):
        search(Query("a", 5))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("7b..14b", (7_000_000_000, 14_000_000_000)),
        ("..500M", (0, 500_000_000)),
        ("1.5B..", (1_500_000_000, 0)),
        ("8b", (6_800_000_000, 9_200_000_000)),
        (None, (0, 0)),
    ],
)
def test_sizes(text: str | None, wanted: tuple[int, int]) -> None:
    assert parse_size(text) == wanted


@pytest.mark.parametrize("text", ["7", "b", "7b-14b", "7b..x", "1e9b", "٧b"])
def test_invalid_size(text: str) -> None:
    with pytest.raises(WrongUsage):
        parse_size(text)


def test_hub_process_writes_utf8_in_any_locale() -> None:
    """A repository, a licence or an error with a letter that the locale lacks ended it with a traceback."""
    command = (sys.executable, "-P", "-m", "mmd.control.models.hub_process", "select", "o/→")
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    assert done.stdout, done.stderr.decode()
    assert "'o/→'" in json.loads(done.stdout)["error"]["message"]
