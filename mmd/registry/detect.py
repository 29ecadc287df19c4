"""Detect the model at a path: its files and facts, or the reason why mmd cannot serve it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from mmd.errors import BadModelFile, MmdError, NotRunnable
from mmd.registry.files import open_regular
from mmd.registry.formats import gguf, gguf_family, safetensors
from mmd.registry.formats.chat_template import has_chat_template, template_marks
from mmd.registry.formats.folder import Config, read_config, repository_name, search_hint
from mmd.registry.formats.folder_layout import folder_layout
from mmd.registry.formats.folder_type import folder_type, refuse_other_formats
from mmd.registry.formats.gguf import GgufHeader
from mmd.registry.formats.gguf_layout import gguf_layout
from mmd.registry.formats.gguf_type import gguf_type, refuse_non_models
from mmd.registry.formats.layer_groups import bytes_per_token
from mmd.registry.formats.quant import folder_quant, gguf_quant, parameters
from mmd.registry.record import Facts, Format, ModelType

# The first bytes of files that are mistaken for models, and what they are.
_FOREIGN = (
    (b"PK\x03\x04", "a zip of pickles (PyTorch), which run their own code when they are loaded"),
    (b"\x80\x02", "a pickle, which runs its own code when it is loaded"),
    (b"\x80\x04", "a pickle, which runs its own code when it is loaded"),
    (b"\x80\x05", "a pickle, which runs its own code when it is loaded"),
    (b"\x89HDF", "an HDF5 file (Keras), which no engine of mmd serves"),
    (b"ggjt", "a ggml file from before GGUF, which no engine reads any more"),
    (b"tjgg", "a ggml file from before GGUF, which no engine reads any more"),
    (b"lmgg", "a ggml file from before GGUF, which no engine reads any more"),
)


@dataclass(frozen=True, slots=True)
class DetectedModel:
    """One model, as read from its files; paths are absolute."""

    path: str
    files: tuple[str, ...]
    projector: str | None
    facts: Facts


def examine(path: Path) -> DetectedModel:
    """Examine a file or folder. Raise NotRunnable or BadModelFile with the reason."""
    path = Path(os.path.abspath(path))  # noqa: PTH100  resolve() would lose the names of a Hugging Face snapshot
    try:
        return _examine(path)
    except PermissionError as error:  # even to test whether a file exists may be refused
        place = str(error.filename or path)
        raise BadModelFile(
            f"{place} cannot be read: {error.strerror}", hint=f"namei -l {quote(place)}   # owners of the folders"
        ) from error
    except OSError as error:  # a disk error, a name that is too long
        raise BadModelFile(
            f"{path} cannot be read: {error.strerror}", hint=f"ls -lL {quote(str(path))}   # shows what it is"
        ) from error


def _examine(path: Path) -> DetectedModel:
    if path.is_dir():
        return _examine_folder(path)
    with open_regular(path) as file:
        start = file.read(64)
    if start.startswith(gguf.MAGIC):
        return _examine_gguf(path)
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _examine_weights_file(path)
    raise _foreign(path, start)


def _examine_folder(folder: Path) -> DetectedModel:
    refuse_other_formats(folder)
    if any(folder.glob("*.safetensors")) or (folder / safetensors.INDEX).exists():
        return _examine_safetensors(folder)
    models = gguf_family.models_in(folder)
    if len(models) == 1:
        return _examine_gguf(models[0])
    if not models:
        raise NotRunnable(
            f"{folder} holds no model: neither a GGUF nor safetensors",
            hint=f"find {quote(str(folder))} -name '*.gguf' -o -name '*.safetensors'   # searches below it",
        )
    shown = ", ".join(model.name for model in models[:8]) + (", …" if len(models) > 8 else "")
    raise NotRunnable(
        f"{folder} holds {len(models)} models: {shown}",
        hint=f"mmd add {quote(str(models[0]))}   # registers the first",
    )


def _examine_gguf(path: Path) -> DetectedModel:
    header = gguf.read_header(path)
    refuse_non_models(header.metadata, str(path))
    files = gguf_family.parts(header)
    headers = [header if file == path else gguf.read_header(file) for file in files]
    first = headers[0]
    if first is not header:
        refuse_non_models(first.metadata, str(files[0]))
    if not any(part.tensors for part in headers):
        raise BadModelFile(
            f"{path} holds no weights, only a vocabulary",
            hint=f"mmd add {quote(str(path))}   # with the path of the model itself",
        )
    gguf_family.check_numbering(headers)
    projector = gguf_family.projector_for(first, files)
    facts = _gguf_facts(headers)
    if projector and facts.type is ModelType.CHAT:
        facts = replace(facts, type=ModelType.VISION)
    return DetectedModel(
        str(files[0]), tuple(str(file) for file in files), str(projector) if projector else None, facts
    )


def _gguf_facts(headers: list[GgufHeader]) -> Facts:
    first = headers[0]
    layout = gguf_layout(headers)
    return Facts(
        format=Format.GGUF,
        type=gguf_type(first),
        architecture=first.architecture,
        quant=gguf_quant(headers),
        weights_bytes=sum(tensor.size_bytes for header in headers for tensor in header.tensors),
        parameters=sum(tensor.elements for header in headers for tensor in header.tensors),
        context_length=first.integer(f"{first.architecture}.context_length") or 0,
        kv_bytes_per_token=bytes_per_token(layout.caches),
        chat_template=bool(first.text("tokenizer.chat_template")),
        name=first.text("general.name"),
        layout=layout,
    )


def _examine_weights_file(path: Path) -> DetectedModel:
    """A safetensors file is a model only together with its folder."""
    safetensors.read_file(path)
    if not (path.parent / "config.json").exists():
        raise NotRunnable(
            f"{path} holds weights, but there is no config.json beside it",
            hint=f"mmd add {quote(str(path.parent))}   # once the whole repository is in one folder",
        )
    return _examine_folder(path.parent)


def _examine_safetensors(folder: Path) -> DetectedModel:
    config = read_config(folder)
    if not config.data:
        raise NotRunnable(
            f"{folder} has safetensors, but no config.json",
            hint=f"mmd add {quote(str(folder))}   # once the whole repository is in one folder",
        )
    weights = safetensors.read_folder(folder)
    return DetectedModel(
        path=str(folder),
        files=tuple(str(file) for file in weights.files),
        projector=None,
        facts=_folder_facts(folder, config, weights),
    )


def _folder_facts(folder: Path, config: Config, weights: safetensors.Weights) -> Facts:
    text = config.language()
    layout = folder_layout(config, weights)
    return Facts(
        format=Format.SAFETENSORS,
        type=folder_type(folder, config),
        architecture=next(iter(config.texts("architectures")), ""),
        quant=folder_quant(config, weights),
        weights_bytes=weights.tensor_bytes,
        parameters=parameters(config, weights),
        context_length=text.integer(
            "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"
        )
        or 0,
        kv_bytes_per_token=bytes_per_token(layout.caches),
        chat_template=has_chat_template(folder),
        name=repository_name(folder),
        template_marks=template_marks(folder),
        attention_heads=layout.attention_heads,
        layout=layout,
    )


def _foreign(path: Path, start: bytes) -> MmdError:
    original = search_hint(path.stem)
    if start.startswith(b"version https://git-lfs"):
        return BadModelFile(
            f"{path} is a Git LFS pointer, not the file itself",
            hint=f"git -C {quote(str(path.parent))} lfs pull   # fetches the file",
        )
    if path.suffix == ".onnx":
        return NotRunnable(f"{path} holds an ONNX model, which no engine of mmd serves", hint=original)
    for magic, what in _FOREIGN:
        if start.startswith(magic):
            return NotRunnable(f"{path} is {what}", hint=original)
    return BadModelFile(
        f"{path} is not a model: it starts neither like a GGUF nor like safetensors",
        hint=f"file {quote(str(path))}   # shows what it is",
    )
