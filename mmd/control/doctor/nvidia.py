"""Check the NVIDIA driver: kernel module, device nodes, libraries, GPUs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmd.control.doctor.diagnosis import Diagnosis, failed, ok, warning
from mmd.machine import Gpu

# NVML error numbers: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceEnumvs.html
_DRIVER_NOT_LOADED = 9
_LIBRARY_NOT_FOUND = 12
_VERSIONS_DIFFER = 18

_NVIDIA = "0x10de"
_DISPLAY = "0x03"  # PCI class of GPUs: VGA, or 3D without an output
_CONTROL = Path("/dev/nvidiactl")
_UVM = Path("/dev/nvidia-uvm")
_MODPROBE = Path("/usr/bin/nvidia-modprobe")


@dataclass(frozen=True, slots=True)
class Driver:
    """State of the driver. `error` is the NVML error number, 0 if NVML answers; `message` is its message."""

    error: int
    message: str
    version: str  # of the library; "" if NVML does not answer
    cuda: str  # the newest CUDA version it supports: "13.0"
    has_card: bool
    module: str  # version of the loaded kernel module, "" if none is loaded
    has_nodes: bool  # /dev/nvidiactl
    may_use_nodes: bool
    has_memory_node: bool  # /dev/nvidia-uvm, or nvidia-modprobe, which creates it at first use
    gpus: tuple[Gpu, ...] = ()
    group: str = ""  # the group of the nodes; "" if it has no name


def read_driver() -> Driver:
    error, message, version, cuda = _ask_nvml()
    gpus: tuple[Gpu, ...] = ()
    if not error:
        from mmd.machine import read_machine

        gpus = read_machine().gpus
    return Driver(
        error=error,
        message=message,
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
    """Return NVML's error number and message, the driver version and the CUDA version."""
    from ctypes import CDLL

    try:
        CDLL("libnvidia-ml.so.1")  # as in machine.py, for the same reason
    except OSError as error:
        return _LIBRARY_NOT_FOUND, str(error), "", ""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            version, cuda = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetCudaDriverVersion_v2()
            for index in range(pynvml.nvmlDeviceGetCount()):  # a lost GPU fails only when it is queried
                pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(index))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return error.value, str(error), "", ""
    text = version.decode() if isinstance(version, bytes) else version  # depends on pynvml's version
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
        yield warning(f"driver {driver.version} reports no GPU: models run on the CPU", "nvidia-smi")
    elif not driver.has_memory_node:
        yield failed(
            "/dev/nvidia-uvm does not exist, so no program can allocate GPU memory",
            "sudo modprobe nvidia-uvm && sudo nvidia-modprobe -u -c 0   # package nvidia-modprobe",
        )
    else:
        names = ", ".join(gpu.name for gpu in driver.gpus)
        yield ok(f"{names}: driver {driver.version}, CUDA up to {driver.cuda}")


def _driver_failure(driver: Driver) -> Diagnosis:
    if driver.error == _VERSIONS_DIFFER:
        running = f"version {driver.module}" if driver.module else "another version"
        return failed(f"the driver was upgraded, but the kernel runs {running} until a reboot", "sudo reboot")
    if not driver.module and driver.error in (_DRIVER_NOT_LOADED, _LIBRARY_NOT_FOUND):
        if not driver.has_card:
            return ok("no NVIDIA GPU: models run on the CPU")
        return warning(
            "an NVIDIA card is present, but its driver is not loaded: models run on the CPU",
            "sudo modprobe nvidia   # not installed: sudo apt install nvidia-driver",
        )
    if driver.module and not driver.has_nodes:
        return failed(
            f"kernel module {driver.module} is loaded, but its device nodes in /dev are missing",
            "sudo nvidia-modprobe -c 0 -u",
        )
    if driver.has_nodes and not driver.may_use_nodes:
        return failed(f"you may not open {_CONTROL}", _how_to_open(driver.group))
    if driver.error == _LIBRARY_NOT_FOUND:
        return failed(
            f"kernel module {driver.module} is loaded, but libnvidia-ml.so.1 is not installed",
            "sudo apt install libnvidia-ml1   # Debian; Ubuntu: libnvidia-compute-VERSION",
        )
    loaded = " (the module is not loaded)" if driver.error == _DRIVER_NOT_LOADED else ""
    which = f"driver {driver.module}" if driver.module else "the driver"  # WSL has no kernel module
    return failed(f"{which} does not answer: {driver.message}{loaded}", "nvidia-smi")


def _how_to_open(group: str) -> str:
    if group not in ("", "root"):
        return f"sudo usermod -aG {group} $USER   # then log out and in"
    return (
        "sudo chmod 0666 /dev/nvidiactl /dev/nvidia[0-9]*"
        "   # permanently: options nvidia NVreg_DeviceFileMode=0666, in /etc/modprobe.d"
    )
