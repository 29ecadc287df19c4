"""The head of one request, read once: what is checked, what is passed on, what stops here."""

from __future__ import annotations

from dataclasses import dataclass

from mmd.control.tunnel.host import exposed_model

# RFC 9110, 7.6.1: these speak of one connection, and the next one is ours. Expect is answered by the gateway, and
# the length is written anew, because the body is whole by then. Keys are for the gateway: engines need none, and what a
# client offers, ours or by mistake somebody else's, is not for them to see.
_STOPS_HERE = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"transfer-encoding",
        b"content-length",
        b"te",
        b"trailer",
        b"upgrade",
        b"expect",
        b"proxy-connection",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"authorization",
        b"x-api-key",
    }
)
_CHECKED = frozenset(
    {
        b"host",
        b"cf-ray",
        b"origin",
        b"content-type",
        b"sec-fetch-site",
        b"sec-fetch-mode",
        b"access-control-request-method",
        b"access-control-request-headers",
    }
)
_USUAL_CONNECTION = frozenset({b"keep-alive", b"close"})

_WEBSOCKET = b"/ws"  # the gateway's own

# Both engines have these beside their /v1, where only what is below it can be reached.
_ELSEWHERE_AT_ENGINES = {b"/v1/tokenize": b"/tokenize", b"/v1/detokenize": b"/detokenize"}

RawHeaders = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class RequestHead:
    method: bytes
    target: bytes
    version: str  # "1.1"
    keep_alive: bool
    forwarded: list[bytes]  # header lines for whoever serves this
    gateway_headers: dict[bytes, list[bytes]]  # values of the headers that stop here or are checked, by lower-case name
    exposed_model: str | None = None  # the one that it may reach, where a tunnel has brought it; asked time and again

    @classmethod
    def read(cls, method: bytes, target: bytes, version: str, keep_alive: bool, headers: RawHeaders) -> RequestHead:
        forwarded: list[bytes] = []
        gateway_headers: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            key = name.lower()
            if key in _STOPS_HERE:
                gateway_headers.setdefault(key, []).append(value)
                continue
            if key in _CHECKED:
                gateway_headers.setdefault(key, []).append(value)
            forwarded.append(name + b": " + value)
        head = cls(method, target, version, keep_alive, forwarded, gateway_headers)
        head._drop_what_connection_names()
        head.exposed_model = exposed_model(head.value(b"host"))
        return head

    def _drop_what_connection_names(self) -> None:
        tokens = {
            token.strip().lower()
            for value in self.gateway_headers.get(b"connection", ())
            for token in value.split(b",")
        }
        if named := tokens - _USUAL_CONNECTION - {b"host", b"content-type"}:
            self.forwarded = [line for line in self.forwarded if line.partition(b":")[0].lower() not in named]

    def value(self, name: bytes) -> bytes:
        """The last value of a header that is checked or stops here; b"" without one."""
        values = self.gateway_headers.get(name)
        return values[-1] if values else b""

    @property
    def is_http10(self) -> bool:
        return self.version == "1.0"

    @property
    def response_has_body(self) -> bool:
        return self.method != b"HEAD"

    @property
    def expects_continue(self) -> bool:
        return not self.is_http10 and self.value(b"expect").lower() == b"100-continue"

    @property
    def origin(self) -> bytes:
        """Of the page that sent it; b"" where no browser says so."""
        return self.value(b"origin")

    @property
    def is_preflight(self) -> bool:
        """A browser asks whether a page may send a request: without the page's key, and without its request."""
        return self.method == b"OPTIONS" and bool(self.origin and self.value(b"access-control-request-method"))

    @property
    def is_health_check(self) -> bool:
        """The plain one of monitors; a page's, which needs leave to read the answer, is any request."""
        return self.method == b"GET" and self.target == b"/health" and b"origin" not in self.gateway_headers

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]

    @property
    def is_websocket(self) -> bool:
        """Whether the client wants to go on as a WebSocket, where there is one."""
        gateway_headers = self.gateway_headers
        return (
            b"upgrade" in gateway_headers
            and self.value(b"upgrade").lower() == b"websocket"
            and self.method == b"GET"
            and not self.is_http10
            and b"content-length" not in gateway_headers
            and b"transfer-encoding" not in gateway_headers
            and (self.is_inference or self.path == _WEBSOCKET)
        )

    @property
    def is_inference(self) -> bool:
        """Only `/v1/…` ever reaches an engine, and the list of models is the gateway's own."""
        path = self.path
        return path.startswith(b"/v1/") and path != b"/v1/models" and not path.startswith(b"/v1/models/")


@dataclass(slots=True)
class Request:
    """One whole request."""

    head: RequestHead
    body: bytes

    def for_engine(self) -> bytes:
        if self.head.is_websocket:
            return self._written([*self.head.forwarded, b"Connection: Upgrade", b"Upgrade: websocket"])
        return self._written(self.head.forwarded)

    def for_management(self) -> bytes:
        """For the ASGI server, which is given one request a connection; so it closes it and says so."""
        if self.head.is_websocket:
            return self._written([*self.head.forwarded, b"Connection: Upgrade", b"Upgrade: websocket"])
        return self._written([*self.head.forwarded, b"Connection: close"])

    def _written(self, lines: list[bytes]) -> bytes:
        head = self.head
        target = head.target
        if elsewhere := _ELSEWHERE_AT_ENGINES.get(head.path):
            target = elsewhere + target[len(head.path) :]
        first = b"%b %b HTTP/1.1" % (head.method, target)
        if self.body or head.method not in (b"GET", b"HEAD"):
            lines = [*lines, b"Content-Length: %d" % len(self.body)]
        return b"\r\n".join((first, *lines, b"", self.body))
