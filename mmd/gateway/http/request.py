"""One request: its head, split into the headers that the gateway reads and those it forwards, and its body."""

from __future__ import annotations

from dataclasses import dataclass

from mmd.control.tunnel.host import exposed_model

# RFC 9110, 7.6.1: headers about one connection are not forwarded to the next. The gateway handles Expect itself, and
# writes Content-Length again because it has read the whole body. API keys are consumed here: engines need none, and
# must not see a key that a client sent by mistake.
_NOT_FORWARDED = frozenset(
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

_WEBSOCKET = b"/ws"  # the only WebSocket that the gateway serves itself

# Both engines serve these outside /v1, and clients can reach only /v1.
_ENGINE_PATHS = {b"/v1/tokenize": b"/tokenize", b"/v1/detokenize": b"/detokenize"}

RawHeaders = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class RequestHead:
    """The head of a request as the gateway needs it. Owned by the parser until the request is complete."""

    method: bytes
    target: bytes
    version: str  # "1.1"
    keep_alive: bool
    forwarded: list[bytes]  # header lines for the engine or the management API
    gateway_headers: dict[bytes, list[bytes]]  # read here: values by lower-case name
    exposed_model: str | None = None  # the only one that a request through a tunnel may reach

    @classmethod
    def read(cls, method: bytes, target: bytes, version: str, keep_alive: bool, headers: RawHeaders) -> RequestHead:
        forwarded: list[bytes] = []
        gateway_headers: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            key = name.lower()
            if key in _NOT_FORWARDED:
                gateway_headers.setdefault(key, []).append(value)
                continue
            if key in _CHECKED:
                gateway_headers.setdefault(key, []).append(value)
            forwarded.append(name + b": " + value)
        head = cls(method, target, version, keep_alive, forwarded, gateway_headers)
        head._drop_connection_headers()
        head.exposed_model = exposed_model(head.value(b"host"))
        return head

    def _drop_connection_headers(self) -> None:
        """Drop the headers that Connection names: they are about this connection only."""
        tokens = {
            token.strip().lower()
            for value in self.gateway_headers.get(b"connection", ())
            for token in value.split(b",")
        }
        if named := tokens - _USUAL_CONNECTION - {b"host", b"content-type"}:
            self.forwarded = [line for line in self.forwarded if line.partition(b":")[0].lower() not in named]

    def value(self, name: bytes) -> bytes:
        """Return the last value of one of `gateway_headers`; b"" if it is missing."""
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
        """The origin of the web page that sent the request; b"" if no browser did."""
        return self.value(b"origin")

    @property
    def is_preflight(self) -> bool:
        """True if a browser asks whether a page may send a request. It carries neither the page's key nor its body."""
        return self.method == b"OPTIONS" and bool(self.origin and self.value(b"access-control-request-method"))

    @property
    def is_health_check(self) -> bool:
        """True for the plain health check of monitors. A page's needs CORS headers and goes to the management API."""
        return self.method == b"GET" and self.target == b"/health" and b"origin" not in self.gateway_headers

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]

    @property
    def is_websocket(self) -> bool:
        """True if the client asks to switch to a WebSocket on a path that has one."""
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
        """True if an engine serves this path. Only `/v1/…` reaches engines; the gateway lists the models itself."""
        path = self.path
        return path.startswith(b"/v1/") and path != b"/v1/models" and not path.startswith(b"/v1/models/")


@dataclass(slots=True)
class Request:
    """One request whose body has arrived completely."""

    head: RequestHead
    body: bytes

    def for_engine(self) -> bytes:
        if self.head.is_websocket:
            return self._encode([*self.head.forwarded, b"Connection: Upgrade", b"Upgrade: websocket"])
        return self._encode(self.head.forwarded)

    def for_management(self) -> bytes:
        """Encode the request for the ASGI server. It gets one request per connection, hence "Connection: close"."""
        if self.head.is_websocket:
            return self._encode([*self.head.forwarded, b"Connection: Upgrade", b"Upgrade: websocket"])
        return self._encode([*self.head.forwarded, b"Connection: close"])

    def _encode(self, lines: list[bytes]) -> bytes:
        head = self.head
        target = head.target
        if engine_path := _ENGINE_PATHS.get(head.path):
            target = engine_path + target[len(head.path) :]
        first = b"%b %b HTTP/1.1" % (head.method, target)
        if self.body or head.method not in (b"GET", b"HEAD"):
            lines = [*lines, b"Content-Length: %d" % len(self.body)]
        return b"\r\n".join((first, *lines, b"", self.body))
