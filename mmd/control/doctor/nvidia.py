"""NVIDIA's driver: whether there is a card, and all that programs need to use it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmd.control.doctor.diagnosis import Diagnosis, failed, ok, warning
from mmd.machine import Gpu

# NVML's own numbers: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceEnumvs.html
_DRIVER_NOT_LOADED = 9
_LIBRARY_NOT_FOUND = 12
_VERSIONS_DIFFER = 18

_NVIDIA = "0x10de"
_DISPLAY = "0x03"  # the class of PCI devices that cards are: VGA, or 3D without an output
_CONTROL = Path("/dev/nvidiactl")
_UVM = Path("/dev/nvidia-uvm")
_MODPROBE = Path("/usr/bin/nvidia-modprobe")


@dataclass(frozen=True, slots=True)
class Driver:
    """What there is of it. `error` is NVML's number, 0 where it answers, and `said` its words."""

    error: int
    said: str
    version: str  # the library's, where it answers
    cuda: str  # the newest that it supports: "13.0"
    has_card: bool
    module: str  # the version of the kernel module that is loaded, "" where none is
    has_nodes: bool  # /dev/nvidiactl
    may_use_nodes: bool
    has_memory_node: bool  # /dev/nvidia-uvm, or what makes it at first use
    gpus: tuple[Gpu, ...] = ()
    group: str = ""  # that the nodes are of; "" where it has no name


def read_driver() -> Driver:
    error, said, version, cuda = _ask_nvml()
    gpus: tuple[Gpu, ...] = ()
    if not error:
        from mmd.machine import read_machine

        gpus = read_machine().gpus
    return Driver(
        error=error,
        said=said,
        version=version,
        cuda=cuda,
        has_card=_has_card(),
        module=_module(),
        has_nodes=_CONTROL.exists(),
        may_use_nodes=os.access(_CONTROL, os.R_OK | os.W_OK),
        has_memory_node=_UVM.exists() or _MODPROBE.exists() or not _CONTROL.exists(),
        gpus=gpus,
        group=_group(),
    )


def _group() -> str:
    try:
        return _CONTROL.group()
    except (FileNotFoundError, KeyError):
        return ""


def _ask_nvml() -> tuple[int, str, str, str]:
    """Its error, what it says of that, its version and CUDA's."""
    from ctypes import CDLL

    try:
        CDLL("libnvidia-ml.so.1")  # as machine.py does, and for the same reason
    except OSError as error:
        return _LIBRARY_NOT_FOUND, str(error), "", ""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            version, cuda = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetCudaDriverVersion_v2()
            for index in range(pynvml.nvmlDeviceGetCount()):  # a GPU that is lost fails only when it is asked itself
                pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(index))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return error.value, str(error), "", ""
    text = version.decode() if isinstance(version, bytes) else version  # by pynvml's version
    return 0, "", text, f"{cuda // 1000}.{cuda % 1000 // 10}"


def _has_card() -> bool:
    devices = Path("/sys/bus/pci/devices")
    return any(
        (device / "vendor").read_text("ascii").strip() == _NVIDIA
        and (device / "class").read_text("ascii").startswith(_DISPLAY)
        for device in devices.glob("*")
    )


def _module() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""
    # "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 …", or "… Open Kernel Module for x86_64  …"
    found = re.search(r"\b\d{3,}\.\d+(?:\.\d+)?\b", text)
    return found[0] if found else "of an unknown version"


def check_driver(driver: Driver) -> Iterator[Diagnosis]:
    if driver.error:
        yield _driver_failure(driver)
    elif not driver.gpus:
        yield warning(f"version {driver.version} is here, and knows of no GPU: models run on the CPU", "nvidia-smi")
    elif not driver.has_memory_node:
        yield failed(
            "there is no /dev/nvidia-uvm, without which no program gets memory on the GPU",
            "sudo modprobe nvidia-uvm && sudo nvidia-modprobe -u -c 0   # it is in the package nvidia-modprobe",
        )
    else:
        names = ", ".join(gpu.name for gpu in driver.gpus)
        yield ok(f"{names}: version {driver.version}, which does CUDA up to {driver.cuda}")


def _driver_failure(driver: Driver) -> Diagnosis:
    if driver.error == _VERSIONS_DIFFER:
        runs = f"version {driver.module} runs" if driver.module else "another version runs"
        return failed(f"it was upgraded, and in the kernel {runs} until the machine is restarted", "sudo reboot")
    if not driver.module and driver.error in (_DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND):
        if not driver.has_card:
            return ok("no GPU of NVIDIA's: models run on the CPU")
        return warning(
            "a card is here and its driver is not loaded: models run on the CPU",
            "sudo modprobe nvidia   # where there is none: sudo apt install nvidia-driver",
        )
    if driver.module and not driver.has_nodes:
        return failed(f"version {driver.module} is loaded, without its devices in /dev", "sudo nvidia-modprobe -c 0 -u")
    if driver.has_nodes and not driver.may_use_nodes:
        return failed(f"{_CONTROL} is not open to you", _how_to_open(driver.group))
    if driver.error == _LIBRARY_NOT_FOUND:
        return failed(
            f"version {driver.module} is loaded, and its library libnvidia-ml.so.1 is not to be found",
            "sudo apt install libnvidia-ml1   # Debian's name; Ubuntu: libnvidia-compute-VERSION",
        )
    loaded = " (the module is not loaded)" if driver.error == _DRIVER_NOT_LOADED else ""
    which = f"version {driver.module}" if driver.module else "the driver"  # of WSL's there is no module here
    return failed(f"{which} does not answer: {driver.said}{loaded}", "nvidia-smi   # what it says")


def _how_to_open(group: str) -> str:
    if group not in ("", "root"):
        return f"sudo usermod -aG {group} $USER   # then log in anew"
    return (
        "sudo chmod 0666 /dev/nvidiactl /dev/nvidia[0-9]*"
        "   # for good: options nvidia NVreg_DeviceFileMode=0666, in /etc/modprobe.d"
    )
