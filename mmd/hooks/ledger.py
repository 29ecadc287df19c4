"""The ledger: the memory that each model holds on each device, by the folders that systemd makes and removes.

    ID~gpu/held  the share of ID, written by the gate of its token. systemd removes the folder when the token is down,
                 after its release hook has exited
    ID/          the engine's folder. systemd removes it when the engine is down, after its hook has waited for the
                 driver
    ID/keeps     what ID keeps asleep, written by the release hook when it has proved that the engine sleeps
    ID~size      the share of ID, written by the gate. It counts while the engine's folder exists without held and keeps

So an engine counts with its whole share from its start to its end, unless there is proof that it sleeps. If a hook or a
planner is killed, the ledger can only be too large.
"""

import os

TYPE_CHECKING = False  # typing itself would have to be imported
if TYPE_CHECKING:
    from collections.abc import Mapping

# device -> MiB; None for the whole machine: units of mmd 0.1 do not say what their engine uses
Entry = dict[str, int] | None


def entries(folder: str) -> dict[str, Entry]:
    """Return what each model holds now.

    Each model is read once, its token before its engine: the release hook writes the proof of sleep before systemd
    removes the token's folder.
    """
    found: dict[str, Entry] = {}
    names = set(os.listdir(folder))  # noqa: PTH208 pathlib is slow to import
    for model_id in {name.removesuffix("~gpu") for name in names if _is_model(name)}:
        held = _read(f"{folder}/{model_id}~gpu/held")
        if held is not None:
            found[model_id] = held
        elif os.path.isdir(f"{folder}/{model_id}"):  # noqa: PTH112
            found[model_id] = _of_engine(folder, model_id)
    return found


def _is_model(name: str) -> bool:
    return not name.startswith(".") and ("~" not in name or name.endswith("~gpu"))


def _of_engine(folder: str, model_id: str) -> Entry:
    keeps = _read(f"{folder}/{model_id}/keeps")
    if keeps is not None:
        return keeps
    size = size_of(folder, model_id)
    # The engine may have ended since the folder was listed.
    return size if size is not None or os.path.isdir(f"{folder}/{model_id}") else {}  # noqa: PTH112


def size_of(folder: str, model_id: str) -> Entry:
    """Return the model's share; None if no gate has admitted it."""
    return _read(f"{folder}/{model_id}~size")


def admit(folder: str, model_id: str, use: "Mapping[str, int]") -> None:
    """Enter a model. The caller holds the lock of the ledger."""
    write(f"{folder}/{model_id}~size", use)
    write(f"{folder}/{model_id}~gpu/held", use)


def is_awake(folder: str, model_id: str) -> bool:
    """True if the model may use its share: its token is active, or its engine runs without proof of sleep."""
    if os.path.exists(f"{folder}/{model_id}~gpu/held"):  # noqa: PTH110
        return True
    keeps = f"{folder}/{model_id}/keeps"
    return os.path.isdir(f"{folder}/{model_id}") and not os.path.exists(keeps)  # noqa: PTH110,PTH112


def is_stranded(folder: str, model_id: str) -> bool:
    """True if the engine is awake without a token: its release hook was killed. Only a stop frees its memory."""
    return (
        not os.path.isdir(f"{folder}/{model_id}~gpu")  # noqa: PTH112
        and os.path.isdir(f"{folder}/{model_id}")  # noqa: PTH112
        and not os.path.exists(f"{folder}/{model_id}/keeps")  # noqa: PTH110
    )


def write(path: str, use: "Mapping[str, int]") -> None:
    """Replace an entry atomically: "GPU-8a3b1c2d=10240"."""
    with open(f"{path}.new", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(text(use))
    os.replace(f"{path}.new", path)  # noqa: PTH105


def text(use: "Mapping[str, int]") -> str:
    return " ".join(f"{device}={size_mib}" for device, size_mib in sorted(use.items()))


def parse(line: str) -> dict[str, int]:
    parts = (word.rpartition("=") for word in line.split())
    return {device: int(size_mib) for device, _, size_mib in parts}


def _read(path: str) -> Entry:
    try:
        with open(path, encoding="ascii") as file:  # noqa: PTH123
            return parse(file.read())
    except OSError:
        return None


class Lock:
    """The lock under which a gate sums the ledger and enters its model. The kernel releases it if the process dies."""

    def __init__(self, folder: str) -> None:
        self._descriptor = os.open(f"{folder}/.ledger", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        from fcntl import LOCK_EX, flock

        flock(self._descriptor, LOCK_EX)

    def __exit__(self, *_: object) -> None:
        from fcntl import LOCK_UN, flock

        flock(self._descriptor, LOCK_UN)
