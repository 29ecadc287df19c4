"""The files around a GGUF: the parts of a split one, the projector of a vision model, its neighbours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

from mmd.errors import BadModelFile
from mmd.registry.formats.gguf import GgufHeader, Value, read_general, read_header
from mmd.registry.formats.gguf_type import is_projector

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_MAX_PARTS = 1024

# Which of several projectors to take: F16 is what llama.cpp's own download takes, F32 gains nothing over it.
_PROJECTOR_ORDER = ("F16", "BF16", "Q8_0", "F32")


def parts(header: GgufHeader) -> tuple[Path, ...]:
    """Every file of the model, in order, whichever part was given; missing ones are named in the error."""
    count = header.integer("split.count") or 1
    if count == 1:
        return (header.path,)
    named = _PART.fullmatch(header.path.name)
    if not named or int(named["count"]) != count or count > _MAX_PARTS:
        raise BadModelFile(
            f"{header.path} is one of {count} parts and is not named like one",
            hint=f"mv {quote(str(header.path))} NAME-00001-of-{count:05}.gguf   # give each part its own name back",
        )
    files = tuple(header.path.with_name(f"{named['stem']}-{n:05}-of-{count:05}.gguf") for n in range(1, count + 1))
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise BadModelFile(
            f"{header.path} is incomplete: {len(missing)} of {count} parts are missing: {shown}",
            hint=f"mmd add {quote(str(files[0]))}   # once what is missing is there",
        )
    return files


def check_numbering(headers: Sequence[GgufHeader]) -> None:
    """The parts say themselves which they are: a renamed one would be loaded in the wrong place."""
    for place, header in enumerate(headers):
        if len(headers) > 1 and header.integer("split.no") != place:
            raise BadModelFile(
                f"{header.path} says that it is part {(header.integer('split.no') or 0) + 1}, not {place + 1}",
                hint=f"mmd add {quote(str(headers[0].path))}   # once its parts are downloaded again",
            )


def models_in(folder: Path) -> list[Path]:
    """The distinct models among the GGUFs of a folder: the first parts, and a projector only where it is alone."""
    files = _ggufs(folder)
    models = [path for path in files if is_first_part(path) and not is_projector(read_general(path))]
    return models or files[:1]


def _ggufs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.gguf") if path.is_file())


def is_first_part(path: Path) -> bool:
    """Whether a GGUF stands for its model: it is whole, or the first of its parts."""
    named = _PART.fullmatch(path.name)
    if not named or int(named["number"]) == 1:
        return True
    # Where the first is missing, the next one stands for the model, so that the error can name the first.
    earlier = (f"{named['stem']}-{n:05}-of-{named['count']}.gguf" for n in range(1, int(named["number"])))
    return not any(path.with_name(name).exists() for name in earlier)


def projector_for(model: GgufHeader, files: Sequence[Path]) -> Path | None:
    """The projector beside the model that was made for it.

    It must feed the model's embedding width; in a folder with several models it must also share its name.
    """
    siblings = [path for path in _ggufs(model.path.parent) if path not in files]
    generals = {path: _general_or_nothing(path) for path in siblings}
    projectors = [path for path in siblings if is_projector(generals[path])]
    if not projectors:
        return None
    width = model.integer(f"{model.architecture}.embedding_length")
    headers = [header for header in map(read_header, projectors) if _projector_width(header) in (None, width)]
    if any(not is_projector(generals[path]) and is_first_part(path) for path in siblings):
        headers = [header for header in headers if _same_name(header, model)]
    return min(headers, key=_preference).path if headers else None


def _general_or_nothing(path: Path) -> Mapping[str, Value]:
    # A damaged neighbour is no reason to refuse this model; adding the neighbour itself will say what is wrong.
    try:
        return read_general(path)
    except BadModelFile:
        return {}


def _projector_width(header: GgufHeader) -> int | None:
    return header.integer("clip.vision.projection_dim") or header.integer("clip.audio.projection_dim")


def _same_name(projector: GgufHeader, model: GgufHeader) -> bool:
    return any(
        projector.text(key) == model.text(key) != "" for key in ("general.basename", "general.name")
    ) or _bare_name(model.path) in _bare_name(projector.path)


def _bare_name(path: Path) -> str:
    """The part of a file name that tells whose it is: without mmproj and what follows the last dash (the quant)."""
    stem = path.stem.lower().removeprefix("mmproj-").removesuffix("-mmproj")
    return stem.rpartition("-")[0] or stem


def _preference(header: GgufHeader) -> int:
    types = [tensor.type.name for tensor in header.tensors if len(tensor.shape) > 1]
    dominant = max(set(types), key=types.count, default="")
    return _PROJECTOR_ORDER.index(dominant) if dominant in _PROJECTOR_ORDER else len(_PROJECTOR_ORDER)
