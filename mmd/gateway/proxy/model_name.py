"""The model that an upload names: a field of a form beside the file."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

from mmd.errors import WrongUsage

_BOUNDARY = re.compile(rb'(?i)\bboundary=(?:"([^"]+)"|([^\s;,"]+))')
_MODEL_FIELD = re.compile(rb"(?i)\r\ncontent-disposition:[^\r\n]*;[ \t]*name=(?:\"model\"|model(?=[;\r]))")


def model_in_query(target: bytes) -> str | None:
    """As `?model=NAME` says: requests that have no body can name a model, too."""
    query = target.partition(b"?")[2]
    if b"model=" not in query:
        return None
    return parse_qs(query.decode("latin-1")).get("model", [None])[-1]


def model_in_form(content_type: bytes, body: bytes) -> str | None:
    """None where it names none. Raises WrongUsage where the form has no boundary."""
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise WrongUsage("multipart/form-data without a boundary", hint="curl -F model=ID -F file=@FILE …")
    delimiter = b"\r\n--" + (boundary[1] or boundary[2])
    name = None
    first = body.find(delimiter[2:])  # with no line before it
    if first < 0:
        return None
    start = first + len(delimiter) - 2
    while (end := body.find(delimiter, start)) >= 0:
        head_end = body.find(b"\r\n\r\n", start, end)
        if head_end >= 0 and _MODEL_FIELD.search(body, start, head_end + 2):
            name = body[head_end + 4 : end].decode("utf-8", "replace")
        start = end + len(delimiter)
    return name
