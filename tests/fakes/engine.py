"""A stand-in for llama-server: a real HTTP server with its command line, its phases and its behaviour.

    python -I -S tests/fakes/engine.py -m MODEL.gguf --host /run/x.sock --alias NAME

It loads at once and takes no memory. `MODEL.gguf.fake.json` makes it misbehave (see `Behaviour`). Every step is a line
of JSON in `$MMD_FAKE_EVENTS`, or in `MODEL.gguf.events`:
`{"t": monotonic ns, "wall": seconds, "event": WORD, "model": alias, "pid": PID}`, with the WORD start, load-begin,
ready, request, sleep, wake-begin, wake, reload, exit, overlap, over-commit or wrong-gpu. If `$MMD_FAKE_GPU` names a
file, loading locks it, and `overlap` reports that another engine still held it: two models were awake at once. The
kernel drops the lock of a killed engine, which cannot write its own `exit`. If `$MMD_FAKE_NVML` names the state of a
fake NVML, the engine takes VRAM there: as its behaviour says, else what `$MMD_SHARE` gives it, in four steps while it
loads. `over-commit` reports that it took more than its GPU had left, `wrong-gpu` that it cannot see a GPU of its share.

It imports few modules of the standard library: tests measure how soon it listens, and pathlib and typing would take 8
ms, as long as everything else.
"""

# ruff: noqa: PTH100, PTH119, PTH120, PTH123
from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import socket
import sys
import threading
import time

# -I leaves this file's folders out of the module path.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.fakes import vram
from tests.fakes.http import Api
from tests.fakes.sleep import Sleeper

TYPE_CHECKING = False  # known to type checkers; importing typing would take too long
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import FrameType
    from typing import NoReturn

# A part of what llama-server b11434 prints for --help. The engine accepts these flags.
HELP = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
--version                               show version and build info
-t,    --threads N                      number of CPU threads to use during generation (default: -1)
                                        (env: LLAMA_ARG_THREADS)
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
-b,    --batch-size N                   logical maximum batch size (default: 2048)
-ub,   --ubatch-size N                  physical maximum batch size (default: 512)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto', default: 'auto')
-ctk,  --cache-type-k TYPE              KV cache data type for K
-ctv,  --cache-type-v TYPE              KV cache data type for V
-ngl,  --gpu-layers, --n-gpu-layers N   max. number of layers to store in VRAM
-ts,   --tensor-split N0,N1,N2,...      fraction of the model to offload to each GPU
-fit,  --fit [on|off]                   whether to adjust unset arguments to fit in device memory
-fitt, --fit-target MiB0,MiB1,MiB2,...
                                        target margin per device for --fit
--repack, -nr, --no-repack              whether to enable weight repacking (default: enabled)
-m,    --model FNAME                    model path to load


----- example-specific params -----

-cram, --cache-ram N                    set the maximum cache size in MiB (default: 8192, -1 - no limit, 0 -
                                        disable)
-mm,   --mmproj FILE                    path to a multimodal projector file. see tools/mtmd/README.md
-np,   --parallel N                     number of server slots (default: -1, -1 = auto)
-a,    --alias STRING                   set model name aliases, comma-separated (to be used by API)
--host HOST                             IP addresses to listen on, comma-separated, or UNIX socket paths
                                        ending in .sock
--port PORT                             port to listen (default: 8080)
--ui,  --webui, --no-ui, --no-webui     whether to enable the Web UI (default: enabled)
--embedding, --embeddings               restrict to only support embedding use case
--rerank, --reranking                   enable reranking endpoint on server (default: disabled)
--pooling {none,mean,cls,last,rank}     pooling type for embeddings
--threads-http N                        number of threads used to process HTTP requests (default: -1)
--metrics                               enable prometheus compatible metrics endpoint (default: disabled)
--slots, --no-slots                     expose slots monitoring endpoint (default: enabled)
--jinja, --no-jinja                     whether to use jinja template engine for chat (default: enabled)
"""
_UUID_CHARACTERS = len("GPU-8a3b1c2d-0000-4000-8000-000000000000")
VERSION = "version: 9611 (02182fc5b)\nbuilt with GNU 12.2.0 for Linux x86_64"


class Behaviour:
    """The contents of `MODEL.gguf.fake.json`; without the file the engine behaves well."""

    load_seconds: float = 0.0
    never_ready: bool = False
    exit_at_once: dict[str, object] | None = None  # {"status": 1, "stderr": "a line"}
    refuses: tuple[str, ...] = ()  # options that are in its help and that it refuses
    aborts_unless_no_repack: bool = False  # like llama-server with deepseek2 on a CPU with AMX
    exit_while_loading_seconds: float | None = None
    ignore_sigterm: bool = False
    exit_seconds: float = 0.0  # between SIGTERM and the end, with its memory still held
    lose_sigterm_while_loading: bool = False  # like vLLM
    spawn_worker: bool = False  # it ignores signals, holds the GPU too and outlives its parent
    die_when_ready_seconds: float | None = None
    die_on_request: bool = False
    hang_on_request: bool = False
    chunks: int = 3  # of a response, streamed or not
    chunk_seconds: float = 0.0  # before each chunk
    stdout_lines: tuple[str, ...] = ()
    can_sleep: bool = False  # adds vLLM's /sleep, /wake_up, /is_sleeping, /collective_rpc and /score
    weights_bytes: int = 0  # of VRAM, freed by sleep
    kv_bytes: int = 0
    keeps_mib: int = 0  # asleep, of each GPU of its share
    sleep_seconds: float = 0.0  # between the last response and sleep
    wake_seconds: float = 0.0
    sleep_status: int = 200  # any other status: it does not sleep
    hang_in_sleep: bool = False
    die_in_sleep: bool = False
    sleep_frees_nothing: bool = False  # it reports that it sleeps, and frees nothing
    wake_lies: bool = False  # /wake_up answers 200 and does nothing

    def __init__(self, model: str) -> None:
        try:
            with open(f"{model}.fake.json", encoding="utf-8") as file:
                wanted = json.load(file)
        except FileNotFoundError:
            return
        for key, value in wanted.items():
            if key not in Behaviour.__annotations__:
                fail(f"{model}.fake.json: no such behaviour: {key}")
            setattr(self, key, value)


def _share() -> dict[str, int]:
    """Return the bytes of each GPU that the launch gives this engine; {} if it was not planned for one."""
    words = (word.partition("=") for word in os.environ.get("MMD_SHARE", "").split())
    return {device: int(mib) * vram.MIB for device, _, mib in words if device != "ram"}


def fail(message: str, status: int = 1) -> NoReturn:
    print(message, file=sys.stderr, flush=True)
    sys.exit(status)


def abort(message: str) -> NoReturn:
    print(message, file=sys.stderr, flush=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.abort()


def pause(seconds: float) -> None:
    """Sleep in short steps: a signal just before a long sleep would not interrupt it, and its handler would wait as
    long.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.02))


def flags() -> dict[str, tuple[str, bool]]:
    """Return every spelling of every flag in HELP: its last spelling, and whether a value follows."""
    spellings: dict[str, tuple[str, bool]] = {}
    for line in HELP.splitlines():
        if line.startswith("-") and not line.startswith("-----"):
            *others, last = line[:40].split(", ") if "  " in line else line.split(", ")
            last, _, value_hint = last.strip().partition(" ")
            spellings |= {name.strip(): (last, bool(value_hint)) for name in (*others, last)}
    return spellings


def parse(argv: list[str]) -> dict[str, str]:
    """Return the options by their last spelling. An option that --help does not list ends the engine, like the real
    one.
    """
    known = flags()
    options: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        if word not in known:
            fail(f"error: invalid argument: {word}")
        name, takes_value = known[word]
        value = next(words, None) if takes_value else word
        if value is None:
            fail(f'error while handling argument "{word}": expected value for argument')
        options[name] = value
    return options


class Engine:
    listens_while_loading = True

    def __init__(self, options: dict[str, str]) -> None:
        self.options = options
        self.model = options["--model"]
        self.alias = options.get("--alias", os.path.basename(self.model))
        self.behaviour = Behaviour(self.model)
        self.terminating = threading.Event()
        self.asked = threading.Event()  # set by any request during the load
        self.gpu = -1
        self.share = _share()
        self.first_gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0]
        self.sleeper = Sleeper(self)
        self.api = Api(self)

    def run(self) -> None:
        self.log("start")
        for line in self.behaviour.stdout_lines:
            print(line, flush=True)
        if once := self.behaviour.exit_at_once:
            fail(str(once.get("stderr", "")), int(str(once.get("status", 1))))
        for option in self.behaviour.refuses:
            if option in self.options:
                fail(f"error: invalid argument: {option}")
        if self.behaviour.aborts_unless_no_repack and self.options.get("--no-repack") != "--no-repack":
            abort("/build/ggml/src/ggml-backend.cpp:1434: GGML_ASSERT(*cur_backend_id != -1) failed")
        self.on_sigterm(self.lose_sigterm if self.behaviour.lose_sigterm_while_loading else self.die_of_sigterm)
        listener = self.bind()
        self.log("load-begin")
        if self.listens_while_loading:
            self.listen(listener)
        self.load()
        self.on_sigterm(self.begin_exit)
        self.log("ready")
        self.api.ready.set()
        if not self.listens_while_loading:
            self.listen(listener)
        print("main: model loaded", file=sys.stderr, flush=True)
        if not self.terminating.wait(self.behaviour.die_when_ready_seconds):
            self.die()
        pause(self.behaviour.exit_seconds)
        listener.shutdown(socket.SHUT_RDWR)  # close() would not wake the thread in accept()
        self.api.drain()
        self.exit(0)

    def bind(self) -> socket.socket:
        host = self.options.get("--host", "127.0.0.1")
        port = int(self.options.get("--port", "8080"))
        is_unix = host.endswith(".sock")
        listener = socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET)
        try:
            listener.bind(host if is_unix else (host, port))
        except OSError:
            print(f"start: couldn't bind HTTP server socket, hostname: {host}, port: {port}", file=sys.stderr)
            fail("llama_server: exiting due to HTTP server error")
        return listener

    def listen(self, listener: socket.socket) -> None:
        listener.listen(512)
        threading.Thread(target=self.api.accept, args=(listener,), daemon=True).start()

    def load(self) -> None:
        self.take_gpu()
        self.sleeper.hold_memory(quarters=1)
        if self.behaviour.spawn_worker:
            self.spawn_worker()
        if self.behaviour.exit_while_loading_seconds is not None:
            pause(self.behaviour.exit_while_loading_seconds)
            self.fail_load("unable to allocate CUDA0 buffer")
        if self.behaviour.never_ready:
            pause(float("inf"))
        for quarters in (2, 3, 4):
            pause(self.behaviour.load_seconds / 4)
            if self.share:
                self.sleeper.hold_memory(quarters)
        pause(self.behaviour.load_seconds / 4)
        self.read_model()

    def read_model(self) -> None:
        """Exit if the file is not a GGUF."""
        try:
            with open(self.model, "rb") as file:
                magic = file.read(4)
        except OSError as error:
            self.fail_load(f"failed to open GGUF file '{self.model}' ({error.strerror})")
        if magic != b"GGUF":
            self.fail_load(f"invalid magic characters: '{magic.decode(errors='replace')}', expected 'GGUF'")

    def fail_load(self, reason: str) -> NoReturn:
        print(f"llama_model_load: error loading model: {reason}", file=sys.stderr)
        print(f"srv    load_model: failed to load model, '{self.model}'", file=sys.stderr)
        print("llama_server: exiting due to model loading error", file=sys.stderr, flush=True)
        self.exit(1)

    # -- signals and exits

    def on_sigterm(self, handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if self.behaviour.ignore_sigterm else handler)

    def die_of_sigterm(self, *_: object) -> None:
        """Die of the signal: the real one has no handler while it loads. Only the log line is ours."""
        self.log("exit")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    def lose_sigterm(self, *_: object) -> None:
        """Ignore the signal, but only after the first request if the engine listens: vLLM does not lose it at once
        either.
        """
        if self.listens_while_loading and not self.asked.is_set():
            self.die_of_sigterm()

    def begin_exit(self, *_: object) -> None:
        if self.terminating.is_set():
            os._exit(1)  # a second SIGTERM
        self.terminating.set()

    def exit(self, status: int) -> NoReturn:
        self.log("exit")
        os._exit(status)  # threads may hang in requests, on purpose

    def die(self) -> None:
        """Die like a victim of the OOM killer, without a message."""
        os.kill(os.getpid(), signal.SIGKILL)

    def spawn_worker(self) -> None:
        pid = os.fork()
        if pid == 0:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            pause(float("inf"))
        self.hold_vram(pid, {self.first_gpu: 1})

    # -- what tests observe

    def log(self, event: str, **details: str) -> None:
        now = {"t": time.monotonic_ns(), "wall": time.time()}
        line = json.dumps(now | {"event": event, "model": self.alias, "pid": os.getpid()} | details)
        where = os.environ.get("MMD_FAKE_EVENTS", f"{self.model}.events")
        # One write to an O_APPEND file: lines of engines that share the log never mix.
        descriptor = os.open(where, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)

    def hold_vram(self, pid: int, held_bytes: Mapping[str, int]) -> None:
        """Let this process, or a child, hold so much of each GPU from now on; log what must not happen."""
        if hidden := [device for device in self.share if not self.sees(device)]:
            self.log("wrong-gpu", detail=f"{' '.join(hidden)} is not in {os.environ.get('CUDA_VISIBLE_DEVICES')}")
        if over := vram.hold(pid, held_bytes):
            self.log("over-commit", detail=over)

    def sees(self, device: str) -> bool:
        """Whether CUDA shows it this GPU: all without the variable, else those named by their whole UUIDs."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            return vram.gpu_count() == 1  # otherwise it would take the others, too
        uuids = visible.split(",")
        return any(uuid.startswith(device) and len(uuid) == _UUID_CHARACTERS for uuid in uuids)

    def take_gpu(self) -> None:
        if self.gpu >= 0 or not (path := os.environ.get("MMD_FAKE_GPU")):
            return
        self.gpu = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self.gpu, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.log("overlap")

    def leave_gpu(self) -> None:
        if self.gpu >= 0:
            fcntl.flock(self.gpu, fcntl.LOCK_UN)  # closing is not enough if a worker has it open too
            os.close(self.gpu)
            self.gpu = -1


def install_fake_llama_server(directory: Path) -> Path:
    """Install this engine as `llama-server` into `directory`, for a test's PATH."""
    program = directory / "llama-server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{os.path.abspath(__file__)}" "$@"\n')
    program.chmod(0o755)
    return program


def main(argv: list[str]) -> None:
    options = parse(argv)
    if "--version" in options:
        print(VERSION, file=sys.stderr)
    elif "--usage" in options:
        print(HELP)
    elif "--model" not in options:
        fail("error: a model is needed: -m FNAME (the real one would start as a router)")
    else:
        Engine(options).run()


if __name__ == "__main__":
    main(sys.argv[1:])
