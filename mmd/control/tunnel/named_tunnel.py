"""A model's named tunnel: DNS name and token, stored in a file with mode 0600."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass

from mmd.atomic import write_atomically
from mmd.control.tunnel.cloudflared import is_token
from mmd.errors import StorageFailed, WrongUsage
from mmd.paths import tunnel_file

_HOSTNAME = re.compile(r"(?=.{4,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class NamedTunnel:
    """A tunnel with a fixed host name; the token authorises cloudflared to serve it."""

    hostname: str
    token: str

    @classmethod
    def parse(cls, hostname: str, token: str) -> NamedTunnel:
        """Check host name and token. Raises WrongUsage if one is invalid."""
        if not _HOSTNAME.fullmatch(hostname):
            raise WrongUsage(f"{hostname!r} is not a host name", hint="mmd expose ID --at llm.example.org")
        if not is_token(token):
            raise WrongUsage(
                "standard input is not a tunnel token",
                hint=f"cloudflared tunnel token NAME | mmd expose ID --at {hostname}",
            )
        return cls(hostname, token)

    @classmethod
    def load(cls, model_id: str) -> NamedTunnel | None:
        """Return the model's tunnel, or None. Raises StorageFailed, and WrongUsage if the file is damaged."""
        file = tunnel_file(model_id)
        try:
            table = tomllib.loads(file.read_text("utf-8"))
            return cls.parse(str(table["hostname"]), str(table["token"]))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageFailed(f"{file} cannot be read: {error.strerror}", hint=f"ls -l {file}") from error
        except (ValueError, KeyError, WrongUsage) as error:
            raise WrongUsage(
                f"{file} is damaged", hint=f"mmd expose --off {model_id}   # then expose it again"
            ) from error

    def save(self, model_id: str) -> None:
        """Write the file. Raises StorageFailed."""
        import tomlkit

        file = tunnel_file(model_id)
        text = "# Written by `mmd expose`. Anyone with the token can serve this host name.\n\n" + (
            tomlkit.dumps({"hostname": self.hostname, "token": self.token})
        )
        try:
            write_atomically(file, text.encode(), mode=0o600)
        except OSError as error:
            raise StorageFailed(f"{file} cannot be written: {error.strerror}", hint=f"ls -l {file}") from error


def delete(model_id: str) -> None:
    """Delete a model's named tunnel, if it has one."""
    tunnel_file(model_id).unlink(missing_ok=True)


def model_ids() -> frozenset[str]:
    """Return the ids of the models with a named tunnel."""
    folder = tunnel_file("x").parent
    return frozenset(file.stem for file in folder.glob("*.toml")) if folder.exists() else frozenset()
