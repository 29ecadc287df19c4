"""HF_ENDPOINT, the URL of a hub other than huggingface.co."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from mmd.errors import HubUnavailable


def require_usable_endpoint() -> None:
    """Raises HubUnavailable if it is not a URL: then the hub's library cannot be imported."""
    endpoint = os.environ.get("HF_ENDPOINT", "")
    try:
        _ = urlsplit(endpoint).port
    except ValueError as error:
        raise HubUnavailable(f"HF_ENDPOINT is not a URL, {endpoint!r}: {error}", hint="unset HF_ENDPOINT") from error
