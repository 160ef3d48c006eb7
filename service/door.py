"""The door: what every request meets before its route, and every answer after it.

A request gets a name (`X-Request-Id`, the caller's own if it is a sane one), which is in the answer, in
problems and in the log. Who asks is settled before a byte of the body is read, so that strangers cost
nothing (but for the forms of the console, of a few kilobytes); how much may be sent is counted as it
arrives, whatever was said of it.
"""

import itertools
import re
import secrets
from collections.abc import Awaitable, Callable

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.gate import Caller
from service.intake import BODY_MAX
from service.problem import Problem, request_id
from service.session import Headers
from service.unpack import too_large, unpacker

SMALL_MAX = 4 * 2**20  # bytes of any other body
EVENTS = "/v1/events"
FORMS = frozenset({"/sign-in", "/sign-out"})  # which strangers send
FORM_MAX = 4096  # bytes
# "/" lets its own caller in: a browser is shown where to sign in
OPEN = frozenset(
    {"/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/sign-in", "/sign-out"}
)

_SANE = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_ALWAYS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]

_log = structlog.get_logger()

Admit = Callable[[str, Headers], Awaitable[Caller]]


class Door:
    """Middleware. `admit` names the caller of a method and headers; `refuse` answers a problem."""

    def __init__(self, app: ASGIApp, admit: Admit, refuse: Callable[[Problem], ASGIApp]) -> None:
        self._app, self._admit, self._refuse = app, admit, refuse
        self._prefix, self._number = secrets.token_hex(6), itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = {k: v for k, v in scope["headers"] if k in _READ}
        name = given.get(b"x-request-id", b"")
        if not _SANE.fullmatch(name):
            name = b"%b-%x" % (self._prefix.encode(), next(self._number))
        request_id.set(name.decode())
        headers = [(b"x-request-id", name), *_ALWAYS]
        path, size, started = scope["path"], 0, False
        most = BODY_MAX if path == EVENTS else FORM_MAX if path in FORMS else SMALL_MAX

        async def told(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > most:
                raise HTTPException(413, too_large(most).detail)  # FastAPI would hide ours
            return message

        try:
            if path not in OPEN:
                caller = await self._admit(scope["method"], given)
                caller.knock()
                scope.setdefault("state", {})["caller"] = caller
            said = given.get(b"content-length", b"")
            if said.isdigit() and int(said[:20]) > most:
                raise too_large(most, int(said[:20]))
            if path != EVENTS and unpacker(
                given.get(b"content-encoding", b"").decode("latin-1"), most
            ):
                raise Problem(415, "Packed", f"only bodies of {EVENTS} may be packed")
            await self._app(scope, counted, told)
        except Problem as problem:
            await self._refuse(problem)(scope, counted, told)
        except Exception as problem:
            # answered here, for the server would cut the connection under whoever shares it
            _log.exception("unexpected", problem=repr(problem), request_id=name.decode())
            if started:
                raise
            ours = Problem(500, "Our mistake", "this request met a fault of ours; it is logged")
            await self._refuse(ours)(scope, counted, told)


_READ = frozenset(
    {
        b"authorization", b"content-length", b"content-encoding", b"x-request-id",
        b"cookie", b"host", b"origin", b"sec-fetch-site", b"x-csrf-token",
    }
)  # fmt: skip
