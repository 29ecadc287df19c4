"""HF_ENDPOINT, which another hub than huggingface.co is named by."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from mmd.errors import HubUnavailable


def require_usable_endpoint() -> None:
    """Raises HubUnavailable for what is no address: the hub's library cannot even be imported then."""
    endpoint = os.environ.get("HF_ENDPOINT", "")
    try:
        _ = urlsplit(endpoint).port
    except ValueError as error:
        raise HubUnavailable(f"HF_ENDPOINT is no address, {endpoint!r}: {error}", hint="unset HF_ENDPOINT") from error
