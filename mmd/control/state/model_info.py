"""What the API and `--json` show of a registered model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mmd.control.state.devices import Bytes, held_bytes
from mmd.control.state.residencies import StatusWord, status_word
from mmd.plan.boot import Startup
from mmd.plan.residency import Pair, held_now, residency
from mmd.quantities import GIB
from mmd.registry.licence import Terms, terms
from mmd.registry.record import Format, Model, ModelType

_NOT_LOADED = Pair()


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A registered model. `vram` is the size of its weights in GiB, `context` what it was trained for, in tokens,
    `devices` the bytes that it holds of each device now.
    """

    id: str
    aliases: tuple[str, ...]
    type: ModelType
    engine: str  # which kind serves the format, whichever build of it is installed
    format: Format
    quant: str
    vram: float
    vram_bytes: int
    context: int
    status: StatusWord
    startup: Startup
    source: str
    licence: str
    terms: Terms
    path: str
    devices: Bytes


def model_infos(
    models: Iterable[Model],
    pairs: Mapping[str, Pair],
    active: str | None,
    startups: Mapping[str, Startup],
    aliases: Mapping[str, tuple[str, ...]],
) -> list[ModelInfo]:
    return [
        model_info(
            model,
            pairs.get(model.id, Pair()),
            active,
            startups.get(model.id, Startup.DISABLED),
            aliases.get(model.id, ()),
        )
        for model in models
    ]


def model_info(
    model: Model,
    pair: Pair = _NOT_LOADED,
    active: str | None = None,
    startup: Startup = Startup.DISABLED,
    aliases: tuple[str, ...] = (),
) -> ModelInfo:
    facts = model.facts
    return ModelInfo(
        id=model.id,
        aliases=aliases,
        type=facts.type,
        engine=_engine_family(facts.format),
        format=facts.format,
        quant=facts.quant,
        vram=round(facts.weights_bytes / GIB, 2),
        vram_bytes=facts.weights_bytes,
        context=facts.context_length,
        status=status_word(model.id, residency(pair), active),
        startup=startup,
        source=model.source,
        licence=model.licence,
        terms=terms(model.licence),
        path=model.path,
        devices=held_bytes(held_now(pair)),
    )


def _engine_family(format: Format) -> str:
    from mmd.engines import for_format  # an idle gateway does without the engines

    return for_format(format).family
