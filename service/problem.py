"""Errors as answers: RFC 9457 problem details, with a pointer to the field."""

from typing import Any

from starlette.responses import JSONResponse


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

    def answer(self) -> JSONResponse:
        body = {
            "type": "about:blank",
            "status": self.status,
            "title": self.title,
            "detail": self.detail,
            **self.more,
        }
        return JSONResponse(
            body, self.status, headers=self.headers, media_type="application/problem+json"
        )


def not_found(what: str, name: str, hint: str | None = None) -> Problem:
    return Problem(404, "Not found", f"no {what} {name!r}" + (f"; {hint}" if hint else ""))
