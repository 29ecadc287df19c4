"""HF_ENDPOINT, the address of a hub other than huggingface.co."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from mmd.errors import HubUnavailable


def require_usable_endpoint() -> None:
    """Raise HubUnavailable if HF_ENDPOINT is not an address: importing huggingface_hub would fail."""
    endpoint = os.environ.get("HF_ENDPOINT", "")
    try:
        _ = urlsplit(endpoint).port
    except ValueError as error:
        raise HubUnavailable(
            f"HF_ENDPOINT is not an address, {endpoint!r}: {error}", hint="unset HF_ENDPOINT"
        ) from error
