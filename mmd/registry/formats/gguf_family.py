"""Find the files that belong to a GGUF: the parts of a split model, and the projector of a vision model."""

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

# Preference among projectors: llama.cpp's own download takes F16; F32 gains nothing over it.
_PROJECTOR_ORDER = ("F16", "BF16", "Q8_0", "F32")


def parts(header: GgufHeader) -> tuple[Path, ...]:
    """Return all files of the model in order, given any part. Raises BadModelFile naming missing parts."""
    count = header.integer("split.count") or 1
    if count == 1:
        return (header.path,)
    named = _PART.fullmatch(header.path.name)
    if not named or int(named["count"]) != count or count > _MAX_PARTS:
        raise BadModelFile(
            f"{header.path} is one of {count} parts, but its name does not say which",
            hint=f"mv {quote(str(header.path))} NAME-00001-of-{count:05}.gguf   # restore the name of each part",
        )
    files = tuple(header.path.with_name(f"{named['stem']}-{n:05}-of-{count:05}.gguf") for n in range(1, count + 1))
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise BadModelFile(
            f"{header.path} is incomplete: {len(missing)} of {count} parts are missing: {shown}",
            hint=f"mmd add {quote(str(files[0]))}   # once the missing files are there",
        )
    return files


def check_numbering(headers: Sequence[GgufHeader]) -> None:
    """Compare each part's own number with its name: a renamed part would be loaded in the wrong place."""
    for place, header in enumerate(headers):
        if len(headers) > 1 and header.integer("split.no") != place:
            raise BadModelFile(
                f"{header.path} contains part {(header.integer('split.no') or 0) + 1}, not {place + 1}",
                hint=f"mmd add {quote(str(headers[0].path))}   # after downloading its parts again",
            )


def models_in(folder: Path) -> list[Path]:
    """Return the models of a folder, as first parts. A projector is returned only if the folder has nothing else."""
    files = _ggufs(folder)
    models = [path for path in files if is_first_part(path) and not is_projector(read_general(path))]
    return models or files[:1]


def _ggufs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.gguf") if path.is_file())


def is_first_part(path: Path) -> bool:
    """True if the file represents its model: it is a whole model or the first part."""
    named = _PART.fullmatch(path.name)
    if not named or int(named["number"]) == 1:
        return True
    # If the first part is missing, the next one represents the model, so that the error can name the missing one.
    earlier = (f"{named['stem']}-{n:05}-of-{named['count']}.gguf" for n in range(1, int(named["number"])))
    return not any(path.with_name(name).exists() for name in earlier)


def projector_for(model: GgufHeader, files: Sequence[Path]) -> Path | None:
    """Return the projector in the same folder that belongs to the model.

    Its output width must equal the model's embedding width; in a folder with several models, the names must also match.
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
    # A damaged file beside this model must not block it; adding that file reports the damage.
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
    """Return a file name without `mmproj` and without the quantisation after the last dash."""
    stem = path.stem.lower().removeprefix("mmproj-").removesuffix("-mmproj")
    return stem.rpartition("-")[0] or stem


def _preference(header: GgufHeader) -> int:
    types = [tensor.type.name for tensor in header.tensors if len(tensor.shape) > 1]
    dominant = max(set(types), key=types.count, default="")
    return _PROJECTOR_ORDER.index(dominant) if dominant in _PROJECTOR_ORDER else len(_PROJECTOR_ORDER)
