"""The process of the embedded engine: llama-server's command line in front of the same C++ server.

    python -P mmd/engines/llama/embedded_main.py -m MODEL.gguf --host /run/x.sock --alias NAME

Run by its path and importing nothing of mmd: it is ready 44 ms after exec with a tiny model, 56 ms with `-m`, and
llama-server takes 15 ms.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn


class Option(NamedTuple):
    spellings: tuple[str, ...]
    value_hint: str  # "" for a switch
    help: str
    apply: Callable[[Any, str], None]  # to xllamacpp.CommonParams


def _set(field: str, kind: Callable[[str], object] = str) -> Callable[[Any, str], None]:
    """Set a field of the parameters; "model.path" is a field of a field."""

    def apply(params: Any, value: str) -> None:
        *outer, name = field.split(".")
        for part in outer:
            params = getattr(params, part)
        setattr(params, name, kind(value))

    return apply


def _flash_attention(params: Any, value: str) -> None:
    from xllamacpp import llama_flash_attn_type

    params.flash_attn_type = getattr(llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{_FLASH_ATTENTION[value]}")


def _rerank(params: Any, _: str) -> None:
    from xllamacpp import llama_pooling_type

    params.embedding = True
    params.pooling_type = llama_pooling_type.LLAMA_POOLING_TYPE_RANK


def _on(_: str) -> bool:
    return True


def _off(_: str) -> bool:
    return False


_FLASH_ATTENTION = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}

OPTIONS: tuple[Option, ...] = (
    Option(("-m", "--model"), "FNAME", "model path to load", _set("model.path")),
    Option(
        ("--host",),
        "HOST",
        "path of the Unix socket to listen on, ending in .sock",
        _set("hostnames", lambda v: [v]),
    ),
    Option(("-a", "--alias"), "STRING", "model name to be used by the API", _set("model_alias", lambda v: {v})),
    Option(("-mm", "--mmproj"), "FILE", "path to a multimodal projector file", _set("mmproj.path")),
    Option(("-c", "--ctx-size"), "N", "size of the prompt context", _set("n_ctx", int)),
    Option(("-b", "--batch-size"), "N", "logical maximum batch size", _set("n_batch", int)),
    Option(("-ub", "--ubatch-size"), "N", "physical maximum batch size", _set("n_ubatch", int)),
    Option(("-fa", "--flash-attn"), "[on|off|auto]", "set Flash Attention use", _flash_attention),
    Option(("-ngl", "--gpu-layers", "--n-gpu-layers"), "N", "layers to store in VRAM", _set("n_gpu_layers", int)),
    Option(("-cram", "--cache-ram"), "N", "maximum cache size in MiB", _set("cache_ram_mib", int)),
    Option(("-np", "--parallel"), "N", "number of server slots", _set("n_parallel", int)),
    Option(
        ("--embedding", "--embeddings"),
        "",
        "restrict to only support embedding use case",
        _set("embedding", _on),
    ),
    Option(("--rerank", "--reranking"), "", "enable reranking endpoint on server", _rerank),
    Option(("--threads-http",), "N", "threads used to process HTTP requests", _set("n_threads_http", int)),
    Option(("--metrics",), "", "enable prometheus compatible metrics endpoint", _set("endpoint_metrics", _on)),
    Option(("--no-ui", "--no-webui"), "", "disable the Web UI", _set("ui", _off)),
)
_BY_SPELLING = {spelling: option for option in OPTIONS for spelling in option.spellings}
FLAGS = frozenset(_BY_SPELLING)


def help_text() -> str:
    """OPTIONS in the layout of llama-server's --help."""
    rows = ((f"{', '.join(option.spellings)} {option.value_hint}", option.help) for option in OPTIONS)
    return "\n".join(f"{head.rstrip():<39} {text}" for head, text in rows)


def apply(params: Any, argv: list[str]) -> None:
    """Put the command line into the parameters; what is wrong with it ends the process, as in llama-server."""
    words = iter(argv)
    for word in words:
        option = _BY_SPELLING.get(word)
        if option is None:
            _fail(f"error: invalid argument: {word}")
        value = next(words, None) if option.value_hint else ""
        if value is None:
            _fail(f'error while handling argument "{word}": expected value for argument')
        try:
            option.apply(params, value)
        except (ValueError, KeyError):
            _fail(f'error while handling argument "{word}": invalid value: {value}')


def serve(argv: list[str]) -> NoReturn:
    import xllamacpp

    params = xllamacpp.CommonParams()
    # llama-server's own choice where -np is not given; the bare parameters say one slot.
    params.n_parallel, params.kv_unified = 4, True
    apply(params, argv)
    # No signal handler is installed until the model is loaded, so a SIGTERM kills at once.
    try:
        # The server runs in its own threads while a reference to it exists.
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        # llama.cpp has logged the cause to stderr; the exception only reports that loading failed.
        _fail(str(error))
    _wait_for_sigterm(server)
    # An orderly exit would wait for the clients; the kernel frees the memory anyway.
    os._exit(0)


def _wait_for_sigterm(_server: object) -> None:
    # llama.cpp's threads do not block signals, so one of them may receive it, and would not wake a sigwait() or
    # pause() here. The wakeup descriptor is written to whichever thread it is.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGTERM, lambda *_: None)
    os.read(reader, 1)


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr, flush=True)
    sys.exit(1)


if __name__ == "__main__":
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(help_text())
    else:
        serve(sys.argv[1:])
