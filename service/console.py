"""The console: what a browser is shown, and how it signs in and out.

A page of ours loads nothing, runs nothing and cannot be framed; what it needs is in it.
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from jinja2 import Environment, Template, select_autoescape
from starlette.responses import HTMLResponse, RedirectResponse

from service.gate import Caller
from service.problem import Problem
from service.session import COOKIE, LIFE_S, Headers, Sessions, refuse_elsewhere
from service.shoal import Shoal

CLUSTERS_SHOWN = 100
FORM_S = 10.0  # how long a form may take to arrive


def page(name: str, status: int = 200, /, **values: Any) -> Response:
    """A page of ours, which loads nothing and runs nothing, and which nobody can frame."""
    made, policy = _made(name)
    return HTMLResponse(
        made.render(values),
        status,
        headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"},
    )


@cache
def _made(name: str) -> tuple[Template, str]:
    """A page's template, and the policy that lets its own style in and nothing else."""
    text = resources.files("service").joinpath(name).read_text()
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    forms = "'self'" if "<form" in text else "'none'"
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action {forms}; "
        "frame-ancestors 'none'"
    )
    return Environment(autoescape=select_autoescape(default=True)).from_string(text), policy


def add_console(
    app: FastAPI,
    shoal: Shoal,
    sessions: Sessions,
    admit: Callable[[str, Headers], Awaitable[Caller]],
    aside: Callable[..., Awaitable[Any]],
    refused: Callable[[str], None],
) -> None:
    """The console's routes.

    `admit` names the caller of a method and headers, `aside` runs a call on a thread, `refused` is
    told why somebody was sent away.
    """

    @app.get("/", include_in_schema=False)
    async def console(request: Request) -> Response:
        try:
            caller = await admit("GET", dict(request.scope["headers"]))
        except Problem as problem:
            if problem.status == 401 and "text/html" in request.headers.get("accept", ""):
                return RedirectResponse("/sign-in", 303)
            raise
        caller.knock()
        caller.must("read")
        clusters = (await aside(shoal.cluster_list))[:CLUSTERS_SHOWN]
        counts = {"events": shoal.accepted, "accounts": len(shoal.engine.ledger)}
        session = sessions.of(dict(request.scope["headers"]))
        return page("page.html", clusters=clusters, key=session and caller.name, **counts)

    @app.get("/sign-in", include_in_schema=False)
    async def sign_in_page(request: Request) -> Response:
        try:
            await admit("GET", {b"host": request.headers.get("host", "").encode("latin-1")})
        except Problem:
            return page("sign_in.html")
        return RedirectResponse("/", 303)  # there are no keys yet

    @app.post("/sign-in", include_in_schema=False)
    async def sign_in(request: Request) -> Response:
        try:
            refuse_elsewhere(dict(request.scope["headers"]))
            async with asyncio.timeout(FORM_S):
                form = parse_qs((await request.body()).decode("latin-1"))
            key = form.get("key", [""])[0].strip()
            caller = await admit("GET", {b"authorization": f"Bearer {key}".encode()})
            caller.knock()
            caller.must("read")
        except TimeoutError:
            raise Problem(
                408, "Too slow", f"a form arrives within {FORM_S:g} s", {"Connection": "close"}
            ) from None
        except Problem as problem:
            refused(problem.cause)
            told = page("sign_in.html", problem.status, problem=problem.detail)
            told.headers.update(problem.headers or {})
            return told
        await aside(shoal.records.audit, caller.name, "sign in", f"key {caller.key_id}", {})
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE, sessions.begin(caller.key_id), max_age=LIFE_S, httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return answer

    @app.post("/sign-out", include_in_schema=False)
    async def sign_out(request: Request) -> Response:
        headers = dict(request.scope["headers"])
        refuse_elsewhere(headers)
        session = sessions.of(headers)
        if session is not None:
            sessions.end(session)
            key = f"key {session.key_id}"
            await aside(shoal.records.audit, key, "sign out", key, {})
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer
