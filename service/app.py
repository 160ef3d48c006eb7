"""The HTTP face. `POST /v1/events` is the hot route: plain, without pydantic; the rest is ordinary FastAPI.

Single POSTs are micro-batched: whoever arrives while a batch is being folded is in the next one.
Every blocking call runs on one worker thread, so that answers never wait behind a sweep.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import resources
from typing import Annotated, Any, Literal

import msgspec
import structlog
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from jinja2 import Environment, select_autoescape
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, Discriminator, Field, Tag
from starlette.responses import HTMLResponse, JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detector.policy import Action
from features.event import AnyEvent
from service import records as r
from service.courier import BadUrl, Courier, Network
from service.database import RecordsError
from service.gate import Gate
from service.intake import BODY_MAX, read_body
from service.openapi import complete
from service.parity import parity
from service.problem import Problem, not_found
from service.shoal import STANDBY, Answer, Shoal, Unavailable

QUEUE_MAX = 200_000  # events waiting; beyond it the caller is told to come back
COURIER_EVERY_S = 1.0  # between two looks at what webhooks are to be told
SWEEP_EVERY_S = 5.0  # wall time between two thoughts of looking at the links
SWEEP_IDLE_S = 60.0  # any news, however little, is looked at after this

_log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode


class Ingest:
    """The queue between requests and the engine."""

    def __init__(self, shoal: Shoal, threads: ThreadPoolExecutor, size: Histogram) -> None:
        self._shoal, self._threads, self._size = shoal, threads, size
        self._waiting: list[tuple[list[AnyEvent], asyncio.Future[list[Answer]]]] = []
        self._count = 0
        self._wake = asyncio.Event()

    async def put(self, events: list[AnyEvent]) -> list[Answer]:
        """Answers of these events.

        Raises:
            Problem: too many events wait already, or the log cannot be written.
        """
        if self._count + len(events) > QUEUE_MAX:
            raise Problem(
                429, "Too busy", f"{self._count} events are waiting", {"Retry-After": "1"}
            )
        future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._waiting.append((events, future))
        self._count += len(events)
        self._wake.set()
        try:
            return await future
        except Unavailable as problem:
            raise Problem(503, "Unavailable", str(problem), {"Retry-After": "1"}) from None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            taken, self._waiting = self._waiting, []
            events = [event for batch, _ in taken for event in batch]
            self._size.observe(len(events))
            try:
                answers = await loop.run_in_executor(self._threads, self._shoal.ingest, events)
            except Exception as problem:  # handed to every caller that waits, who fails with it
                for _, future in taken:
                    if not future.done():
                        future.set_exception(problem)
            else:
                at = 0
                for batch, future in taken:
                    if not future.done():
                        future.set_result(answers[at : at + len(batch)])
                    at += len(batch)
            finally:
                self._count -= len(events)


_TAGS = ONE, MANY = "one label", "many labels"


class LabelIn(BaseModel, extra="forbid"):
    """What somebody says of an account or of a cluster; exactly one of the two is named."""

    account_id: str | None = Field(None, min_length=1, max_length=128)
    cluster_id: str | None = Field(None, min_length=1, max_length=128)
    label: Literal["abusive", "honest", "unsure"]
    typology: str | None = None
    source: Literal["analyst", "dispute", "appeal", "canary", "import"] = "analyst"
    at: int | None = Field(None, ge=0, le=2**53, description="epoch milliseconds; now if absent")
    note: str | None = Field(None, max_length=4000)


# told apart by its form, so that an error speaks of the one that was meant
Labels = Annotated[
    Annotated[LabelIn, Tag(ONE)] | Annotated[list[LabelIn], Tag(MANY)],
    Discriminator(lambda body: MANY if isinstance(body, list) else ONE),
]


class NoteIn(BaseModel, extra="forbid"):
    text: str = Field(min_length=1, max_length=10_000)


class CaseDecisionIn(BaseModel, extra="forbid"):
    action: Literal["allow", "challenge", "throttle", "review", "suspend"]
    label: Literal["abusive", "honest", "unsure"] | None = None
    typology: str | None = Field(None, min_length=1, max_length=64)
    note: str | None = Field(None, max_length=10_000)
    accounts: list[str] | None = Field(
        None,
        max_length=10_000,
        description="members the label holds for; all of the case's if absent",
    )


class WebhookIn(BaseModel, extra="forbid"):
    """Where to POST what happens, and what of it."""

    url: str = Field(min_length=1, max_length=2048)
    events: list[Literal["decision", "case.opened", "case.updated", "case.closed"]] = Field(
        min_length=1, max_length=4
    )


class CanaryIn(BaseModel, extra="forbid"):
    """A marked prompt: `prompt_id` as the edge will send it, raw or already hashed."""

    prompt_id: str = Field(min_length=1, max_length=512)
    station: str = Field(min_length=1, max_length=200)
    note: str | None = Field(None, max_length=4000)


def pointer_to(field: str | None) -> str:
    """A JSON pointer (RFC 6901, as a fragment) to a field that an event's error names.

    >>> pointer_to("owners[0].share")
    '#/owners/0/share'
    """
    return "#" + "".join(f"/{_escaped(p)}" for p in re.split(r"[.\[\]]+", field or "") if p)


def _escaped(part: object) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


class _Limit:
    """Refuses bodies beyond BODY_MAX, said or not, before they are in memory."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > BODY_MAX:
                raise HTTPException(413, f"a body holds at most {BODY_MAX} bytes")
            return message

        said = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        if said.isdigit() and int(said) > BODY_MAX:
            told = Problem(
                413, "Too large", f"a body holds at most {BODY_MAX} bytes, this one {int(said)}"
            )
            await told.answer()(scope, receive, send)
        else:
            await self._app(scope, counted, send)


def create_app(shoal: Shoal, webhook_allow: Sequence[Network] = ()) -> FastAPI:
    """The application over a started Shoal, which its lifespan closes.

    `webhook_allow` are networks that are not public and may have webhooks all the same.
    """
    registry = CollectorRegistry()
    batch = Histogram(
        "shoal_batch_events",
        "Events folded together",
        registry=registry,
        buckets=(1, 8, 64, 512, 4096),
    )
    events_total = Counter(
        "shoal_events_total", "Events answered, by status", ["status"], registry=registry
    )
    sweep_seconds = Histogram("shoal_sweep_seconds", "Looking at the links", registry=registry)
    gauges = {
        name: Gauge(f"shoal_{name}", help, registry=registry)
        for name, help in (
            ("ready", "1 when events are taken"),
            ("accounts", "Accounts known"),
            ("clusters", "Clusters at the last sweep"),
            ("log_entries", "Entries in the hot log"),
        )
    }
    fold_thread = ThreadPoolExecutor(1, thread_name_prefix="fold")
    side_thread = ThreadPoolExecutor(2, thread_name_prefix="side")
    ingest = Ingest(shoal, fold_thread, batch)
    gate = Gate(shoal.records)
    courier = Courier(
        shoal.records, shoal.folder.webhook_key(), clock=shoal.clock, allowed=webhook_allow
    )
    courier_thread = ThreadPoolExecutor(1, thread_name_prefix="courier")

    async def aside(call: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(side_thread, call, *args)

    async def watch() -> None:
        looked = 0.0
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                await aside(shoal.mend)
                now = asyncio.get_running_loop().time()
                idle = (
                    shoal.fault is None and shoal.engine.news > 0 and now - looked >= SWEEP_IDLE_S
                )
                if shoal.fault is None and (shoal.engine.due() or idle):
                    with sweep_seconds.time():
                        await aside(shoal.look)
                    looked = now
                if shoal.snapshot_due():
                    await aside(shoal.snapshot)
            except Exception:
                _log.exception("background work failed")

    async def carry() -> None:
        """Tell the webhooks, on a thread that nobody else waits for."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                if await loop.run_in_executor(courier_thread, courier.round):
                    continue
            except RecordsError as problem:
                _log.error("webhooks cannot be told", why=str(problem))
            await asyncio.sleep(COURIER_EVERY_S)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(ingest.run()),
            asyncio.create_task(watch()),
            asyncio.create_task(carry()),
        ]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        courier_thread.shutdown()  # a round under way still writes down how it went
        courier.close()
        await aside(shoal.close)
        fold_thread.shutdown()
        side_thread.shutdown()

    app = FastAPI(
        title="Shoal",
        version="0.1.0",
        description="Finds the accounts that swim together.",
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
    )

    app.add_middleware(_Limit)

    @app.exception_handler(Problem)
    async def _(_: Request, problem: Problem) -> Response:
        return problem.answer()

    @app.exception_handler(RequestValidationError)
    async def _(_: Request, problem: RequestValidationError) -> Response:
        errors = [
            {
                "pointer": "#" + "".join(f"/{_escaped(p)}" for p in e["loc"][1:] if p not in _TAGS),
                "in": str(e["loc"][0]),
                "detail": e["msg"],
            }
            for e in problem.errors()
        ]
        return Problem(
            422,
            "Not as expected",
            "; ".join(f"{e['pointer']}: {e['detail']}" for e in errors),
            errors=errors,
        ).answer()

    @app.exception_handler(HTTPException)
    async def _(_: Request, problem: HTTPException) -> Response:
        title = "Too large" if problem.status_code == 413 else "Refused"
        return Problem(problem.status_code, title, str(problem.detail)).answer()

    @app.exception_handler(500)
    async def _(_: Request, problem: Exception) -> Response:
        _log.error("unexpected", problem=repr(problem))
        return Problem(
            500, "Our mistake", "this request met a fault of ours; it is logged"
        ).answer()

    @app.exception_handler(404)
    async def _(request: Request, problem: Exception) -> Response:
        if isinstance(problem, Problem):
            return problem.answer()
        return not_found("path", request.url.path, "see /docs").answer()

    @app.exception_handler(405)
    async def _(request: Request, _: Exception) -> Response:
        return Problem(
            405, "Method not allowed", f"{request.method} {request.url.path}: see /docs"
        ).answer()

    @app.exception_handler(RecordsError)
    async def _(_: Request, problem: RecordsError) -> Response:
        status = (
            404
            if isinstance(problem, r.NotFound)
            else 409
            if isinstance(problem, r.CaseConflict)
            else 503
        )
        return Problem(status, type(problem).__name__, str(problem)).answer()

    @app.exception_handler(Unavailable)
    async def _(_: Request, problem: Unavailable) -> Response:
        return Problem(503, "Unavailable", str(problem), {"Retry-After": "1"}).answer()

    async def who(request: Request, scope: r.Scope) -> str:
        """The caller's name; keys are asked for as soon as one exists."""
        if shoal.fault is not None:
            raise Unavailable(shoal.fault)
        if shoal.standby and scope != "read":
            raise Unavailable(STANDBY)
        given = request.headers.get("authorization", "")
        if gate.known(given):
            return gate.admit(given, scope)
        name: str = await aside(gate.admit, given, scope)
        return name

    def scoped(scope: r.Scope) -> Any:
        async def check(request: Request) -> str:
            return await who(request, scope)

        return Depends(check)

    # --- events

    async def post_events(request: Request) -> Response:
        await who(request, "ingest")
        packed = request.headers.get("content-encoding", "identity")
        if packed != "identity":
            raise Problem(415, "Packed", f"a body in {packed} is not read: send it as it is")
        intake = read_body(await request.body(), request.headers.get("content-type", ""))
        answers = await ingest.put(intake.events) if intake.events else []
        for answer in answers:
            events_total.labels(answer.status).inc()
        for answer, line in zip(answers, intake.place, strict=True):
            if answer.status == "rejected":
                answer.line = line
        rejected = [
            Answer(x.event_id, "rejected", error=x.error, field=x.field, hint=x.hint, line=x.line)
            for x in intake.rejected
        ]
        events_total.labels("rejected").inc(len(rejected))
        if intake.single:
            only = (answers + rejected)[0]
            if only.status == "rejected":
                pointer = pointer_to(only.field)
                words = (only.error or "") + (f" ({only.hint})" if only.hint else "")
                detail = f"field `{only.field}`: {words}" if only.field else words
                raise Problem(
                    422, "Not an event", detail, errors=[{"pointer": pointer, "detail": words}]
                )
            return Response(_encode(only), media_type="application/json")
        merged = sorted(
            [*zip(intake.place, answers, strict=True), *((x.line or 0, x) for x in rejected)],
            key=lambda p: p[0],
        )
        return Response(_encode([answer for _, answer in merged]), media_type="application/json")

    app.add_route("/v1/events", post_events, methods=["POST"])

    # --- accounts

    def account(account_id: str) -> None:
        if account_id not in shoal.engine.ledger:
            raise not_found("account", account_id)

    @app.get("/v1/accounts", dependencies=[scoped("read")])
    async def get_accounts(
        action: Literal["challenge", "throttle", "review", "suspend"] = "review",
    ) -> Any:
        """Accounts whose standing calls for this action or a more severe one."""
        least = Action[action]
        return {
            "accounts": [
                {
                    "account_id": name,
                    "action": s.action.name,
                    "score": s.score,
                    "cluster_id": s.cluster_id,
                }
                for name, s in list(shoal.engine.standing.items())
                if s.action >= least
            ]
        }

    @app.get("/v1/accounts/{account_id:path}/links", dependencies=[scoped("read")])
    async def get_links(account_id: str) -> Any:
        """The accounts it is linked to, strongest first, and by what."""
        account(account_id)
        return await aside(shoal.links_of, account_id)

    @app.get("/v1/accounts/{account_id:path}/vector", dependencies=[scoped("read")])
    async def get_vector(account_id: str) -> Any:
        """Its features as of the last event; null is unknown."""
        account(account_id)
        vector = await aside(shoal.vector_of, account_id)
        return {
            "account_id": account_id,
            "feature_hash": shoal.engine.catalog.hash,
            "at_ms": shoal.engine.window.watermark,
            "vector": {
                n: None if v != v else v
                for n, v in zip(shoal.engine.catalog.names, vector, strict=True)
            },
        }

    # last of those that begin like it, for an account's id may hold slashes
    @app.get("/v1/accounts/{account_id:path}", dependencies=[scoped("read")])
    async def get_account(account_id: str) -> Any:
        """What it used and paid, where it stands and why, what was decided and said of it."""
        account(account_id)
        entry = shoal.engine.ledger[account_id]
        standing = shoal.engine.standing.get(account_id)
        decisions = await aside(shoal.records.decisions_of, account_id)
        labels = await aside(lambda: shoal.records.label_history(account_id=account_id))
        return {
            "account_id": account_id,
            "events": entry.events,
            "cost_usd": entry.cost,
            "paid_usd": entry.kept,
            "score": standing.score if standing else None,
            "action": (standing.action if standing else Action.allow).name,
            "cluster_id": standing.cluster_id if standing else None,
            "reasons": [msgspec.to_builtins(x) for x in standing.reasons] if standing else [],
            "decisions": decisions,
            "labels": labels,
        }

    @app.delete("/v1/accounts/{account_id:path}")
    async def delete_account(account_id: str, caller: Annotated[str, scoped("admin")]) -> Any:
        """Erase it from log, state and records, with a proof; the service recovers meanwhile."""
        proof = await aside(shoal.erase, account_id, caller)
        if proof is None:
            raise not_found("account", account_id)
        return {"erased": account_id, "proof": asdict(proof)}

    # --- clusters

    @app.get("/v1/clusters", dependencies=[scoped("read")])
    async def get_clusters(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100, offset: Annotated[int, Query(ge=0)] = 0
    ) -> Any:
        found = await aside(shoal.cluster_list)
        return {"clusters": found[offset : offset + limit], "total": len(found)}

    @app.get("/v1/clusters/{cluster_id}", dependencies=[scoped("read")])
    async def get_cluster(cluster_id: str) -> Any:
        """Its evidence, timeline, money and proposed action."""
        case = await aside(shoal.case, cluster_id)
        if case is None:
            raise not_found("cluster", cluster_id)
        return msgspec.to_builtins(case)

    @app.get("/v1/clusters/{cluster_id}/members", dependencies=[scoped("read")])
    async def get_members(cluster_id: str) -> Any:
        members = await aside(shoal.members_of, cluster_id)
        if members is None:
            raise not_found("cluster", cluster_id)
        return {"cluster_id": cluster_id, "members": members}

    @app.get("/v1/parity", dependencies=[scoped("admin")])
    async def get_parity() -> Any:
        """Recompute served vectors from the log; takes as long as a replay of it."""
        return msgspec.to_builtins(await aside(parity, shoal))

    @app.post("/v1/sweep")
    async def post_sweep(_: Annotated[str, scoped("admin")]) -> Any:
        """Look at the links now instead of within seconds."""
        found = await aside(shoal.look)
        return {"at_ms": found.at, "clusters": len(found.clusters)}

    # --- people's words

    @app.post("/v1/labels", status_code=201)
    async def post_labels(body: Labels, caller: Annotated[str, scoped("act")]) -> Any:
        new = [
            r.Label(
                x.label,
                x.source,
                x.at if x.at is not None else shoal.clock(),
                x.account_id,
                x.cluster_id,
                x.typology,
                x.note,
            )
            for x in (body if isinstance(body, list) else [body])
        ]
        try:
            kept = await aside(lambda: shoal.records.add_labels(new, by=caller))
        except ValueError as problem:
            raise Problem(422, "Not a label", str(problem)) from None
        return {"labels": kept}

    @app.get("/v1/cases", dependencies=[scoped("read")])
    async def get_cases(
        status: Literal["open", "claimed", "closed"] | None = None,
        cursor: Annotated[str | None, Query(max_length=200)] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Any:
        try:
            return await aside(shoal.records.list_cases, status, cursor, limit)
        except ValueError as problem:
            raise Problem(422, "Not as expected", str(problem)) from None

    @app.get("/v1/cases/{case_id}", dependencies=[scoped("read")])
    async def get_case(case_id: int) -> Any:
        return await aside(shoal.records.get_case, case_id)

    @app.post("/v1/cases/{case_id}/claim")
    async def claim_case(case_id: int, caller: Annotated[str, scoped("act")]) -> Any:
        return await aside(shoal.records.claim_case, case_id, caller)

    @app.post("/v1/cases/{case_id}/notes", status_code=201)
    async def note_case(case_id: int, body: NoteIn, caller: Annotated[str, scoped("act")]) -> Any:
        try:
            return await aside(shoal.records.note_case, case_id, caller, body.text)
        except ValueError as problem:
            raise Problem(422, "Not a note", str(problem)) from None

    @app.post("/v1/cases/{case_id}/decide")
    async def decide_case(
        case_id: int, body: CaseDecisionIn, caller: Annotated[str, scoped("act")]
    ) -> Any:
        def decide() -> r.Case:
            members = shoal.records.get_case(case_id).body.get("members", [])
            return shoal.records.decide_case(
                case_id,
                caller,
                body.action,
                label=body.label,
                typology=body.typology,
                accounts=members if body.accounts is None else body.accounts,
                note=body.note,
            )

        return await aside(decide)

    @app.get("/v1/webhooks", dependencies=[scoped("admin")])
    async def get_webhooks() -> Any:
        return {"webhooks": await aside(shoal.records.list_webhooks)}

    @app.post("/v1/webhooks", status_code=201)
    async def post_webhook(body: WebhookIn, caller: Annotated[str, scoped("admin")]) -> Any:
        """Be told of events by POST. The secret that signs them is in this answer and never again."""
        try:
            host = await aside(courier.check, body.url)
        except BadUrl as problem:
            place = [{"pointer": "#/url", "detail": str(problem)}]
            raise Problem(422, "Not a webhook", f"#/url: {problem}", errors=place) from None
        add = shoal.records.add_webhook
        webhook = await aside(lambda: add(body.url, body.events, host, by=caller))
        return asdict(webhook) | {"secret": courier.secret(webhook.id)}

    @app.get("/v1/webhooks/{webhook_id}", dependencies=[scoped("admin")])
    async def get_webhook(webhook_id: str) -> Any:
        """With the last messages that it was never told, and why."""
        webhook, letters = await aside(shoal.records.get_webhook, webhook_id)
        return asdict(webhook) | {"dead_letters": letters}

    @app.post("/v1/webhooks/{webhook_id}/redeliver")
    async def redeliver(webhook_id: str, caller: Annotated[str, scoped("admin")]) -> Any:
        """Try its dead letters again."""
        again = await aside(lambda: shoal.records.redeliver(webhook_id, by=caller))
        return {"redelivered": again}

    @app.delete("/v1/webhooks/{webhook_id}")
    async def delete_webhook(webhook_id: str, caller: Annotated[str, scoped("admin")]) -> Any:
        await aside(lambda: shoal.records.remove_webhook(webhook_id, by=caller))
        return {"removed": webhook_id}

    @app.get("/v1/canaries", dependencies=[scoped("read")])
    async def get_canaries() -> Any:
        return {"canaries": await aside(shoal.records.list_canaries)}

    @app.post("/v1/canaries", status_code=201)
    async def post_canary(body: CanaryIn, caller: Annotated[str, scoped("act")]) -> Any:
        mark = shoal.secret.token("prompt", body.prompt_id)
        if mark in shoal.canaries:
            raise Problem(409, "Known already", "this prompt is a canary already: GET /v1/canaries")
        canary = await aside(
            lambda: shoal.records.add_canary(mark, body.station, body.note, by=caller)
        )
        shoal.canaries.add(mark)
        return canary

    # --- the operator's

    @app.get("/healthz")
    async def healthz() -> Any:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> Response:
        if shoal.fault is not None:
            return Problem(503, "Not ready", shoal.fault, {"Retry-After": "1"}).answer()
        return JSONResponse(
            {
                "status": "standby" if shoal.standby else "ready",
                "events": shoal.accepted,
                "model": shoal.model.version if shoal.model else None,
                "feature_hash": shoal.engine.catalog.hash,
            }
        )

    @app.get("/metrics")
    async def metrics() -> Response:
        gauges["ready"].set(shoal.fault is None)
        if shoal.fault is None:
            gauges["accounts"].set(len(shoal.engine.ledger))
            gauges["clusters"].set(len(shoal.engine.cluster_ids))
            gauges["log_entries"].set(len(shoal.entry_id))
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    page = Environment(autoescape=select_autoescape(default=True)).from_string(
        resources.files("service").joinpath("page.html").read_text()
    )

    @app.get("/", dependencies=[scoped("read")], include_in_schema=False)
    async def console() -> HTMLResponse:
        if shoal.fault is not None:
            raise Problem(503, "Not ready", shoal.fault)
        clusters = (await aside(shoal.cluster_list))[:100]
        return HTMLResponse(
            page.render(clusters=clusters, events=shoal.accepted, accounts=len(shoal.engine.ledger))
        )

    make = app.openapi
    app.openapi = lambda: app.openapi_schema or complete(make())  # type: ignore[method-assign]
    return app
