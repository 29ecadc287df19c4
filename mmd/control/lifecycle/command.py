"""The controller of a command, which records what is resident when it ends: a gateway does it while it runs."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mmd.control.install.presence import running_version
from mmd.control.lifecycle.controller import Controller
from mmd.control.state.last_resident import record_resident
from mmd.errors import MmdError

_log = logging.getLogger(__name__)


@asynccontextmanager
async def command_controller() -> AsyncIterator[Controller]:
    """Yield a controller; afterwards record what is resident, even if the command has failed or was interrupted."""
    async with Controller() as controller:
        try:
            yield controller
        finally:
            if running_version() is None:
                try:
                    await record_resident(controller.manager)
                except MmdError as error:  # the command's own result counts
                    _log.warning("the resident models are not recorded: %s", error.message)
