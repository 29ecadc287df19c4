"""Plan how registered models are started on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mmd.control.state.refused_flags import RefusedFlags

if TYPE_CHECKING:
    from mmd.control.state.machine_reader import MachineReader
    from mmd.machine import Machine
    from mmd.plan.last_words import Refusal
    from mmd.plan.launch import Launch
    from mmd.plan.release import ReleaseEffect
    from mmd.registry.record import Model
    from mmd.registry.store import Registry
    from mmd.settings import Settings


class LaunchPlanner:
    """Plans launches from the registry, mmd.toml, the installed engines and the machine, as they are at each call.

    Its work, imports included, is done in the reader's thread.
    """

    def __init__(self, reader: MachineReader, registry: Registry) -> None:
        self._reader = reader
        self._registry = registry
        self._machine: Machine | None = None
        self._refused = RefusedFlags()

    async def launch(self, model_id: str, *, leaving: Mapping[str, ReleaseEffect] | None = None) -> Launch:
        """Plan how a model is started.

        With `leaving`, read the machine now and plan for the moment at which these units have released the GPU; without
        it, use the last reading. Raises NoSuchModel and what `plan_launch` raises.
        """
        if leaving is not None or self._machine is None:
            self._machine = await self._reader.machine()
        return await self._reader.call(self._plan, model_id, self._machine, leaving)

    async def files_to_read_ahead(self, model_id: str) -> tuple[str, ...]:
        """Return a model's files; none if RAM is too short to keep them in the page cache until they are used."""
        machine = self._machine or await self._reader.machine()
        return await self._reader.call(self._read_ahead, model_id, machine)

    async def remember(self, launch: Launch, refusal: Refusal) -> None:
        """Record what the engine refused, so that later launches leave it out. Raises StorageFailed."""
        await self._reader.call(self._refused.remember, launch.model_id, launch.title, refusal.subjects, refusal.output)

    def _plan(self, model_id: str, machine: Machine, leaving: Mapping[str, ReleaseEffect] | None) -> Launch:
        from mmd.plan.release import machine_after_release
        from mmd.settings import read_settings

        here = machine if leaving is None else machine_after_release(machine, leaving)
        # Read at each call: a gateway that runs for weeks must plan as the command line does.
        return plan_launch(self._registry.get(model_id), here, read_settings())

    def _read_ahead(self, model_id: str, machine: Machine) -> tuple[str, ...]:
        from mmd.control.lifecycle.read_ahead import worthwhile

        model = self._registry.get(model_id)
        fits = worthwhile(model.facts.weights_bytes, machine.ram_available_bytes, machine.ram_total_bytes)
        return model.files if fits else ()


def plan_launch(model: Model, machine: Machine, settings: Settings) -> Launch:
    """Plan how a registered model runs on a machine with the engines that are installed here. It blocks, since it may
    run programs, and writes nothing.

    Raises EngineMissing, DoesNotFit, and BadModelFile if its files are gone.
    """
    from mmd.control.models.aliases import candidate_aliases
    from mmd.control.models.installed_engines import installed_engines
    from mmd.engines import missing
    from mmd.paths import cache_dir, engine_socket
    from mmd.plan.choose import ModelSettings, choose
    from mmd.registry.store import require_files

    require_files(model)
    table = settings.model(model.id)
    model_settings = ModelSettings(
        engine=table.engine,
        context=table.context,
        ready_seconds=table.ready_seconds,
        arguments=table.arguments,
        aliases=candidate_aliases(model, settings),
        refused=RefusedFlags().refused(model.id),
    )
    return choose(
        model,
        machine,
        installed_engines(settings),
        socket=str(engine_socket(model.id)),
        cache=str(cache_dir()),
        settings=model_settings,
        projector_bytes=Path(model.projector).stat().st_size if model.projector else 0,
        missing=missing,
    )
