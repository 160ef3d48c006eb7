"""Errors as answers: RFC 9457 problem details, with a pointer to the field and the request's name."""

from contextvars import ContextVar
from typing import Any

from starlette.responses import JSONResponse

# of the request that is being answered; `service/door.py` sets it
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class Problem(Exception):
    """An answer that is an error.

    Args:
        status: HTTP status.
        title: the kind of problem, the same every time.
        detail: what is wrong this time, and what to do about it.
        more: further members (`errors`: a list of `{pointer, detail}`).
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail, self.headers, self.more = (
            status,
            title,
            detail,
            headers,
            more,
        )

    @property
    def cause(self) -> str:
        """The title as a metric's label: `too_large`."""
        return self.title.lower().replace(" ", "_")

    def answer(self) -> JSONResponse:
        body = {
            "type": "about:blank",
            "status": self.status,
            "title": self.title,
            "detail": self.detail,
            **self.more,
        }
        if (name := request_id.get()) is not None:
            body["request_id"] = name
        return JSONResponse(
            body, self.status, headers=self.headers, media_type="application/problem+json"
        )


def not_found(what: str, name: str, hint: str | None = None) -> Problem:
    return Problem(404, "Not found", f"no {what} {name!r}" + (f"; {hint}" if hint else ""))


def busy(detail: str) -> Problem:
    """Said instead of letting work pile up: nothing was taken in, the same may be sent again."""
    return Problem(503, "Too busy", detail, {"Retry-After": "1"})


def unavailable(detail: str) -> Problem:
    return Problem(503, "Unavailable", detail, {"Retry-After": "1"})
