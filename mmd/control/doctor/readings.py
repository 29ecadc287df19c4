"""Every input of the checks. All reads start at once, each in its own thread."""

from __future__ import annotations

import asyncio
from functools import partial

from mmd.control.doctor.background_read import BackgroundRead
from mmd.control.doctor.cgroups import read_cgroups
from mmd.control.doctor.disk import read_disks
from mmd.control.doctor.engines import read_build, read_engines
from mmd.control.doctor.failures import read_failures
from mmd.control.doctor.folders import read_folders, read_sockets
from mmd.control.doctor.hub import HubAccess, hub_endpoint, import_library, read_access
from mmd.control.doctor.lingering import read_lingering
from mmd.control.doctor.manager import read_manager
from mmd.control.doctor.memory import read_ram
from mmd.control.doctor.models import read_model_files
from mmd.control.doctor.nvidia import read_driver
from mmd.control.doctor.ports import read_health, read_port_owners
from mmd.control.doctor.suspend import read_sleep_lock
from mmd.control.install.addresses import gateway_addresses
from mmd.control.install.inspection import read_install_state
from mmd.engines import Engine, all_engines
from mmd.engines.build import Build
from mmd.paths import config_file, data_dir, registry_file
from mmd.registry.store import Registry
from mmd.settings import read_settings

_HUB_TIMEOUT_SECONDS = 3.0
_ENGINE_TIMEOUT_SECONDS = 15.0  # vLLM takes ten seconds to list its options
_JOURNAL_TIMEOUT_SECONDS = 15.0  # a journal on a slow disk may take ten seconds
_LIST_NETWORK_MOUNTS = "findmnt -t nfs,nfs4,cifs,fuse.sshfs   # a server that does not answer"


class Readings:
    """Each attribute is a read in progress; its failure shows when a check asks for its value."""

    def __init__(self, *, offline: bool) -> None:
        self.hub: BackgroundRead[HubAccess] | None = None
        if not offline:
            library = BackgroundRead("huggingface_hub", import_library, hint="mmd search qwen")
            self.hub = BackgroundRead(
                "the hub", read_access, hint=f"curl -I {hub_endpoint()}", limit_seconds=_HUB_TIMEOUT_SECONDS,
                after=(library,),
            )  # fmt: skip
        self.driver = BackgroundRead("the NVIDIA driver", read_driver, hint="nvidia-smi")
        self.manager = BackgroundRead("the user manager", read_manager, hint="systemctl --user status")
        self.settings = BackgroundRead("mmd.toml", read_settings, hint=f"ls -l {config_file()}")
        self.has_settings = BackgroundRead("mmd.toml", config_file().exists, hint=f"ls -l {config_file()}")
        self.lingering = BackgroundRead("lingering", read_lingering, hint="loginctl show-user $USER")
        self.models = BackgroundRead(
            "models.json", lambda: Registry(is_read_only=True).all(), hint=f"ls -l {registry_file()}"
        )
        self._read_units()
        self._read_engines()
        self._read_machine()

    def _read_units(self) -> None:
        manager = self.manager
        self.addresses = BackgroundRead(
            "the gateway's address", lambda: gateway_addresses(self.settings.value()),
            hint=f"${{EDITOR:-nano}} {config_file()}", after=(self.settings,),
        )  # fmt: skip
        self.install_state = BackgroundRead(
            "the state of mmd's units", lambda: asyncio.run(read_install_state()),
            hint="systemctl --user status mmd.socket", after=(manager, self.addresses),
        )  # fmt: skip
        self.port_owners = BackgroundRead(
            "the list of open ports", lambda: read_port_owners(self.addresses.value().all), hint="ss -ltnp",
            after=(self.addresses,),
        )  # fmt: skip
        self.health = BackgroundRead(
            "the gateway", lambda: self._health() if manager.value().has_gateway else None,
            hint="systemctl --user restart mmd.service   # models keep running", after=(manager, self.addresses),
        )  # fmt: skip
        self.cgroups = BackgroundRead(
            "the control group hierarchy", lambda: read_cgroups(manager.value().control_group),
            hint="mount -t cgroup2", after=(manager,),
        )  # fmt: skip
        self.sockets = BackgroundRead(
            "the folder of engine sockets", lambda: read_sockets(manager.value().running),
            hint="ls -lR $XDG_RUNTIME_DIR/mmd", after=(manager,),
        )  # fmt: skip
        self.failures = BackgroundRead(
            "the journal", lambda: read_failures(manager.value()),
            hint="journalctl -n 20", limit_seconds=_JOURNAL_TIMEOUT_SECONDS, after=(manager,),
        )  # fmt: skip

    def _health(self) -> str:
        return read_health(self.addresses.value().main, self.manager.value().listening)

    def _read_engines(self) -> None:
        settings, driver = self.settings, self.driver
        self.engines = BackgroundRead(
            "the list of engines", lambda: read_engines(settings.value(), limit_seconds=_ENGINE_TIMEOUT_SECONDS),
            hint="mmd engine list", limit_seconds=_ENGINE_TIMEOUT_SECONDS + 1, after=(settings,),
        )  # fmt: skip
        self.builds = tuple(
            BackgroundRead(
                f"the build of {engine.name}", partial(self._read_build, engine), hint=f"{engine.name} --version",
                after=(self.engines, driver),
            )
            for engine in all_engines()
        )  # fmt: skip

    def _read_build(self, engine: Engine) -> Build | None:
        return read_build(engine, self.engines.value(), has_gpu=bool(self.driver.value().gpus))

    def _read_machine(self) -> None:
        models = self.models
        self.ram = BackgroundRead("RAM use", read_ram, hint="free -h")
        self.sleep_lock = BackgroundRead("logind", read_sleep_lock, hint="systemctl status systemd-logind")
        self.folders = BackgroundRead("a folder of mmd", read_folders, hint=f"ls -la {data_dir()}")
        self.disks = BackgroundRead(
            "a file system", lambda: read_disks(models.value_or_none() or ()), hint=_LIST_NETWORK_MOUNTS
        )
        self.model_files = BackgroundRead(
            "a model file", lambda: read_model_files(models.value()), hint=_LIST_NETWORK_MOUNTS, after=(models,)
        )
