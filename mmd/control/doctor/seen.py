"""All that checks judge: it begins to be read at once, each thing in its own time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from mmd.control.doctor.cgroups import ControlGroups, read_cgroups
from mmd.control.doctor.engines import read_devices, read_engines, read_torch
from mmd.control.doctor.failures import Failures, read_failures
from mmd.control.doctor.hub import Access, endpoint_here, import_library, read_access
from mmd.control.doctor.lingering import Lingering, read_lingering
from mmd.control.doctor.manager import ManagerState, read_manager
from mmd.control.doctor.memory import Ram, read_ram
from mmd.control.doctor.models import ModelFiles, read_model_files
from mmd.control.doctor.nvidia import Driver, read_driver
from mmd.control.doctor.places import Place, Sockets, read_places, read_sockets
from mmd.control.doctor.ports import Listener, read_listeners, read_status
from mmd.control.doctor.reading import Reading
from mmd.control.doctor.storage import FileSystem, read_file_systems
from mmd.control.doctor.suspend import SleepLock, read_sleep_lock
from mmd.control.install.addresses import Addresses, configured
from mmd.control.install.engines import EngineStatus
from mmd.control.install.inspection import Installation, installation
from mmd.engines.installer.torch_build import TorchBuild
from mmd.paths import config_file, data_dir, registry_file
from mmd.registry.record import Model
from mmd.registry.store import Registry
from mmd.settings import Settings, read_settings

_HUB_SECONDS = 3.0
_ENGINE_SECONDS = 15.0  # vLLM's list of its options takes ten
_JOURNAL_SECONDS = 15.0  # a journal on a slow disk may take ten
_WHICH_HANGS = "findmnt -t nfs,nfs4,cifs,fuse.sshfs   # a server that does not answer"


class Seen:
    """Attributes are readings; what has failed of them shows when a check asks for it."""

    def __init__(self, *, offline: bool) -> None:
        self.hub: Reading[Access] | None = None
        if not offline:
            library: Reading[None] = Reading("huggingface_hub", import_library, look="mmd search qwen")
            self.hub = Reading(
                "the hub", read_access, look=f"curl -I {endpoint_here()}", limit_seconds=_HUB_SECONDS, after=(library,)
            )
        self.driver: Reading[Driver] = Reading("NVIDIA's driver", read_driver, look="nvidia-smi")
        self.manager: Reading[ManagerState] = Reading("the user manager", read_manager, look="systemctl --user status")
        self.settings: Reading[Settings] = Reading("mmd.toml", read_settings, look=f"ls -l {config_file()}")
        self.has_settings: Reading[bool] = Reading("mmd.toml", config_file().exists, look=f"ls -l {config_file()}")
        self.lingering: Reading[Lingering] = Reading("lingering", read_lingering, look="loginctl show-user $USER")
        self.models: Reading[tuple[Model, ...]] = Reading(
            "models.toml", lambda: Registry(keeps_damaged=False).all(), look=f"ls -l {registry_file()}"
        )
        self._of_units()
        self._of_engines()
        self._of_the_machine()

    def _of_units(self) -> None:
        manager = self.manager
        self.addresses: Reading[Addresses] = Reading(
            "the gateway's address", lambda: configured(self.settings.value()),
            look=f"${{EDITOR:-nano}} {config_file()}", after=(self.settings,),
        )  # fmt: skip
        self.installation: Reading[Installation] = Reading(
            "mmd's units", lambda: asyncio.run(installation()),
            look="systemctl --user status mmd.socket", after=(manager, self.addresses),
        )  # fmt: skip
        self.listeners: Reading[Mapping[str, Listener | None]] = Reading(
            "who listens", lambda: read_listeners(self.addresses.value().all), look="ss -ltnp", after=(self.addresses,)
        )
        self.gateway: Reading[str | None] = Reading(
            "the gateway", lambda: self._status() if manager.value().has_gateway else None,
            look="systemctl --user restart mmd.service   # loses no model", after=(manager, self.addresses),
        )  # fmt: skip
        self.cgroups: Reading[ControlGroups] = Reading(
            "control groups", lambda: read_cgroups(manager.value().control_group),
            look="mount -t cgroup2", after=(manager,),
        )  # fmt: skip
        self.sockets: Reading[Sockets] = Reading(
            "the engines' sockets", lambda: read_sockets(manager.value().running),
            look="ls -lR $XDG_RUNTIME_DIR/mmd", after=(manager,),
        )  # fmt: skip
        self.failures: Reading[Failures] = Reading(
            "the journal", lambda: read_failures(manager.value()),
            look="journalctl -n 20", limit_seconds=_JOURNAL_SECONDS, after=(manager,),
        )  # fmt: skip

    def _status(self) -> str:
        return read_status(self.addresses.value().main, self.manager.value().listening)

    def _of_engines(self) -> None:
        settings, driver = self.settings, self.driver
        self.engines: Reading[tuple[EngineStatus, ...]] = Reading(
            "engines", lambda: read_engines(settings.value(), limit_seconds=_ENGINE_SECONDS),
            look="mmd engine list", limit_seconds=_ENGINE_SECONDS + 1, after=(settings,),
        )  # fmt: skip
        self.torch: Reading[TorchBuild | None] = Reading(
            "vLLM's torch", lambda: read_torch(self.engines.value()), look="mmd engine list", after=(self.engines,)
        )
        self.devices: Reading[tuple[str, ...] | None] = Reading(
            "llama-server", lambda: read_devices(self.engines.value()) if driver.value().gpus else None,
            look="llama-server --list-devices", after=(self.engines, driver),
        )  # fmt: skip

    def _of_the_machine(self) -> None:
        models = self.models
        self.ram: Reading[Ram] = Reading("RAM", read_ram, look="free -h")
        self.sleep_lock: Reading[SleepLock | None] = Reading(
            "logind", read_sleep_lock, look="systemctl status systemd-logind"
        )
        self.places: Reading[tuple[Place, ...]] = Reading("mmd's folders", read_places, look=f"ls -la {data_dir()}")
        self.file_systems: Reading[tuple[FileSystem, ...]] = Reading(
            "a file system", lambda: read_file_systems(models.value_or_none() or ()), look=_WHICH_HANGS
        )
        self.model_files: Reading[tuple[ModelFiles, ...]] = Reading(
            "a model's file", lambda: read_model_files(models.value()), look=_WHICH_HANGS, after=(models,)
        )
