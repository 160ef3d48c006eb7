"""What a request may be before it is one: uvicorn's protocol with a bound on the head, in bytes and in time,
and on the time in which an answer has to be read.

The application bounds bodies (service/ingest.py), but a request is not the application's before its head has
ended, and the parser keeps a head for as long as it grows. Whoever opens a connection and says nothing, or
says it slowly, holds a socket likewise. Both are for strangers to do, who need no key.
"""

import asyncio

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_MAX = (
    64 * 2**10
)  # bytes of a request's line and headers; one read of the socket may come on top
AHEAD_MAX = 16  # requests sent ahead of the answers to those before; thousands fit into one read
HEAD_S = 10.0  # how long they may take, from the first of them or from the connection
UNREAD_S = 10.0  # after which who has read nothing more of an answer is cut off


class BoundedHead(HttpToolsProtocol):
    """One connection. Errors before there is a request are problems of RFC 9457, too."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._unread = 0  # bytes since the last that ended a head or were a body's
        self._in_head = True
        self._late: asyncio.TimerHandle | None = None
        self._unsent: asyncio.TimerHandle | None = None
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        self._all_read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        super().data_received(data)
        if self._unread > HEAD_MAX:  # also of the trailers behind a body
            self._refuse(
                431, "Head too large", f"a request's line and headers are at most {HEAD_MAX} bytes"
            )
        elif self._in_head and self._unread:
            self._wait()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader(-1)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._all_read()

    def _watch_reader(self, before: int) -> None:
        """An answer that nobody reads is memory that strangers fill: they have to go on reading it."""
        left = self.transport.get_write_buffer_size()
        if 0 <= before <= left:
            self.transport.abort()
        else:
            self._unsent = self.loop.call_later(UNREAD_S, self._watch_reader, left)

    def _all_read(self) -> None:
        if self._unsent is not None:
            self._unsent.cancel()
            self._unsent = None

    def on_headers_complete(self) -> None:
        self._unread, self._in_head = 0, False
        self._in_time()
        if len(self.pipeline) >= AHEAD_MAX:
            raise ValueError("too many requests ahead of their answers")  # the parser's 400
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread, self._in_head = 0, True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "Not HTTP", msg)

    def _wait(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_S, self._too_slow)

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_slow(self) -> None:
        self._late = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait()  # it sent more behind a request that is still being answered
        elif self._unread:
            self._refuse(
                408, "Too slow", f"a request's line and headers arrive within {HEAD_S:g} s"
            )
        else:
            self.transport.close()

    def _refuse(self, status: int, title: str, detail: str) -> None:
        """Answer what is no request, unless another one is being answered, and hang up."""
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            problem = {"type": "about:blank", "status": status, "title": title, "detail": detail}
            body = msgspec.json.encode(problem)
            self.transport.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%b" % (status, title.encode(), len(body), body)
            )
        self.transport.close()
