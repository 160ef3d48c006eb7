"""The HTTP face. `POST /v1/events` is the hot route: plain, without pydantic; the rest is ordinary FastAPI.

Every blocking call runs on a thread aside: keys, bodies, what people ask and long work (a sweep, a snapshot,
an erasure) each on their own, so that no kind waits behind another.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Annotated, Any, Literal, get_args

import msgspec
import structlog
from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Discriminator, Field, Tag
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    StreamingResponse,
)
from starlette.routing import Match, Route

from detector.policy import Action
from detector.sweep import Sweep
from features.event import AnyEvent
from service import records as r
from service.console import add_console, page
from service.courier import BadUrl, Courier, Network
from service.database import RecordsError
from service.door import Door
from service.gate import LIFE_S, RATE, Caller, Gate, refuse_rebound
from service.ingest import Ingest, Room
from service.intake import BODY_MAX, read_body
from service.openapi import complete
from service.parity import parity
from service.problem import Problem, not_found, unavailable
from service.session import SAFE, Headers, Sessions, refuse_elsewhere, refuse_forged
from service.shoal import STANDBY, Answer, Shoal, Unavailable
from service.stream import Decisions, Listening
from service.unpack import unpacker
from service.vitals import Vitals

BODY_S = 60.0  # how long a body may take to arrive
READ_ASIDE = 64 * 2**10  # bytes; what is larger is read on a thread aside: others are answered
COURIER_EVERY_S = 1.0  # between two looks at what webhooks are to be told
WRITTEN_S = 1.0  # how long what was decided just now is waited for
SWEEP_EVERY_S = 5.0  # wall time between two thoughts of looking at the links
SWEEP_IDLE_S = 60.0  # any news, however little, is looked at after this

_log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode


_TAGS = ONE, MANY = "one label", "many labels"


def part(found: list[Any], cursor: str | None, limit: int) -> tuple[list[Any], str | None]:
    """A page of a list, and the cursor of the next one: None after the last.

    >>> part(["a", "b", "c"], None, 2)
    (['a', 'b'], 'o2')
    >>> part(["a", "b", "c"], "o2", 2)
    (['c'], None)
    """
    at = int(cursor[1:]) if cursor else 0
    end = at + limit
    return found[at:end], f"o{end}" if end < len(found) else None


_CURSOR = "`next` of the page before, as it is; the first page if absent"
Cursor = Annotated[str | None, Query(pattern="^o[0-9]{1,9}$", description=_CURSOR)]
CaseCursor = Annotated[str | None, Query(pattern="^c[0-9]{1,18}$", description=_CURSOR)]


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

    url: str = Field(pattern="^https?://", max_length=2048)
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


def create_app(shoal: Shoal, rate: float = RATE, webhook_allow: Sequence[Network] = ()) -> FastAPI:
    """The application over a started Shoal, which its lifespan closes.

    `rate` is what one key may send, in events a second; `webhook_allow` are networks that are not public
    and may have webhooks all the same. `app.state.decisions` is the stream, to be closed when the
    server stops.
    """
    threads = {
        name: ThreadPoolExecutor(n, thread_name_prefix=name)
        for name, n in (
            ("fold", 1),
            ("gate", 1),
            ("read", 2),
            ("side", 4),
            ("long", 2),
            ("tell", 1),
        )
    }
    decisions = Decisions()

    def told(events: Sequence[AnyEvent], answers: Sequence[Answer]) -> None:
        vitals.decided(answers)
        decisions.put(events, answers)

    ingest, room = Ingest(shoal, threads["fold"], threads["read"], told), Room()
    gate = Gate(shoal.records, rate=rate)
    vitals = Vitals(shoal, ingest, room, decisions, gate)
    sessions = Sessions(shoal.folder.webhook_key())
    courier = Courier(
        shoal.records, shoal.folder.webhook_key(), clock=shoal.clock, allowed=webhook_allow
    )

    async def on(name: str, call: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads[name], call, *args)

    async def aside(call: Callable[..., Any], *args: Any) -> Any:
        return await on("side", call, *args)

    async def sweep() -> Sweep:
        with vitals.sweep_seconds.time():
            found: Sweep = await on("long", shoal.look)
        vitals.swept_at = time.monotonic()
        return found

    async def watch() -> None:
        looked = 0.0
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                await on("long", shoal.mend)
                now = asyncio.get_running_loop().time()
                idle = (
                    shoal.fault is None and shoal.engine.news > 0 and now - looked >= SWEEP_IDLE_S
                )
                if shoal.fault is None and (shoal.engine.due() or idle):
                    await sweep()
                    looked = now
                if shoal.snapshot_due():
                    await on("long", shoal.snapshot)
            except Exception:
                _log.exception("background work failed")

    async def carry() -> None:
        """Tell the webhooks."""
        while True:
            try:
                if await on("tell", courier.round):
                    continue
            except RecordsError as problem:
                _log.error("webhooks cannot be told", why=str(problem))
            except Exception:  # of this round; the next may go well
                _log.exception("a round of the courier failed")
            await asyncio.sleep(COURIER_EVERY_S)

    async def know() -> None:
        """Keep what is known of the keys fresh."""
        while True:
            with contextlib.suppress(RecordsError):  # then whoever asks is told
                await on("gate", gate.look)
            await asyncio.sleep(LIFE_S / 2)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(ingest.run()),
            asyncio.create_task(watch()),
            asyncio.create_task(carry()),
            asyncio.create_task(know()),
        ]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        threads["tell"].shutdown()  # a round under way still writes down how it went
        courier.close()
        await on("long", shoal.close)
        for pool in threads.values():
            pool.shutdown()

    app = FastAPI(
        title="Shoal",
        version="0.1.0",
        description="Finds the accounts that swim together.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.decisions = decisions

    # --- who asks, and what is refused

    async def admit(method: str, headers: Headers) -> Caller:
        """The caller, by key or by session; keys are asked for as soon as one exists."""
        if shoal.fault is not None:
            raise unavailable(shoal.fault)
        authorization = headers.get(b"authorization", b"").decode("latin-1")
        session = sessions.of(headers)
        try:
            if not gate.fresh:
                await on("gate", gate.look)
            if session is not None:
                refuse_forged(session, method, headers)
                caller = gate.holder(session.key_id)
            else:
                caller = gate.recall(authorization) or await on("gate", gate.admit, authorization)
        except RecordsError as problem:
            raise unavailable(str(problem)) from None
        if caller.scopes is None:
            refuse_rebound(headers.get(b"host", b""))
            if method not in SAFE:
                refuse_elsewhere(headers)
        return caller

    def may(request: Request, scope: r.Scope) -> str:
        """The caller's name, if he may do what asks for this scope here."""
        caller: Caller = request.state.caller
        caller.must(scope)
        if shoal.standby and scope != "read":
            raise unavailable(STANDBY)
        return caller.name

    def scoped(scope: r.Scope) -> Any:
        async def check(request: Request) -> str:
            return may(request, scope)

        return Depends(check)

    def refuse(problem: Problem) -> Response:
        vitals.refused(problem.cause)
        return problem.answer()

    app.add_middleware(Door, admit=admit, refuse=refuse)

    @app.exception_handler(Problem)
    async def _(_: Request, problem: Problem) -> Response:
        return refuse(problem)

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
        detail = "; ".join(f"{e['pointer']}: {e['detail']}" for e in errors)
        return refuse(Problem(422, "Not as expected", detail, errors=errors))

    def allowed(request: Request) -> str:
        """The methods of all routes with this path; one route knows only its own."""
        routes = [x for x in app.routes if isinstance(x, Route)]
        path = next(x.path for x in routes if x.matches(request.scope)[0] != Match.NONE)
        return ", ".join(sorted({m for x in routes if x.path == path for m in x.methods or ()}))

    @app.exception_handler(HTTPException)
    async def _(request: Request, problem: HTTPException) -> Response:
        headers = dict(problem.headers or {})
        match problem.status_code:
            case 404:
                told = not_found("path", request.url.path, "see /docs")
            case 405:
                words = f"{request.method} {request.url.path}: see /docs"
                told = Problem(405, "Method not allowed", words, {"Allow": allowed(request)})
            case 413:
                told = Problem(413, "Too large", str(problem.detail))
            case status:
                told = Problem(status, "Refused", str(problem.detail), headers)
        return refuse(told)

    @app.exception_handler(ClientDisconnect)
    async def _(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it

    @app.exception_handler(RecordsError)
    async def _(_: Request, problem: RecordsError) -> Response:
        known = {r.NotFound: (404, "Not found"), r.CaseConflict: (409, "Conflict")}
        status, title = known.get(type(problem), (503, "Unavailable"))
        headers = {"Retry-After": "1"} if status == 503 else None
        return refuse(Problem(status, title, str(problem), headers))

    @app.exception_handler(Unavailable)
    async def _(_: Request, problem: Unavailable) -> Response:
        return refuse(unavailable(str(problem)))

    # --- events

    async def arrived(request: Request, taken: list[int]) -> bytes:
        """The body, unpacked, once all of it is here; what it takes of the room is noted."""
        packed = unpacker(request.headers.get("content-encoding", ""), BODY_MAX)
        pieces = []
        try:
            async with asyncio.timeout(BODY_S):
                async for piece in request.stream():
                    if packed and piece:
                        piece = await on("read", packed.feed, piece)
                    room.take(len(piece))
                    taken.append(len(piece))
                    pieces.append(piece)
        except TimeoutError:
            raise Problem(
                408, "Too slow", f"a body arrives within {BODY_S:g} s", {"Connection": "close"}
            ) from None
        if packed:
            packed.end()
        return b"".join(pieces)

    async def post_events(request: Request) -> Response:
        may(request, "ingest")
        caller: Caller = request.state.caller
        taken: list[int] = []
        try:
            with vitals.ingest_seconds.time():
                body = await arrived(request, taken)
                return await answered(caller, body, request.headers.get("content-type", ""))
        finally:
            room.give(sum(taken))

    async def answered(caller: Caller, body: bytes, content_type: str) -> Response:
        if len(body) > READ_ASIDE:
            intake = await on("read", read_body, body, content_type)
        else:
            intake = read_body(body, content_type)
        caller.pay(len(intake.events) + len(intake.rejected) - 1)  # the first is paid at the door
        answers = await ingest.put(intake.events) if intake.events else []
        for answer, line in zip(answers, intake.place, strict=True):
            if answer.status == "rejected":
                answer.line = line
        rejected = [
            Answer(x.event_id, "rejected", error=x.error, field=x.field, hint=x.hint, line=x.line)
            for x in intake.rejected
        ]
        vitals.answered(answers)
        vitals.answered(rejected)
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
        cursor: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    ) -> Any:
        """Accounts whose standing calls for this action or a more severe one, by name."""
        least = Action[action]
        names = sorted(n for n, s in list(shoal.engine.standing.items()) if s.action >= least)
        some, more = part(names, cursor, limit)
        standing = shoal.engine.standing
        return {
            "accounts": [
                {
                    "account_id": name,
                    "action": s.action.name,
                    "score": s.score,
                    "cluster_id": s.cluster_id,
                }
                for name in some
                if (s := standing.get(name)) is not None
            ],
            "next": more,
        }

    @app.get("/v1/accounts/{account_id:path}/links", dependencies=[scoped("read")])
    async def get_links(
        account_id: str,
        cursor: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 100,
    ) -> Any:
        """The accounts it is linked to (the hundred strongest), strongest first, and by what."""
        account(account_id)
        found = await aside(shoal.links_of, account_id)
        some, more = part(found["links"], cursor, limit)
        return found | {"links": some, "next": more}

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
        await aside(shoal.scribe.flush, WRITTEN_S)
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
        proof = await on("long", shoal.erase, account_id, caller)
        if proof is None:
            raise not_found("account", account_id)
        return {"erased": account_id, "proof": asdict(proof)}

    # --- clusters

    @app.get("/v1/clusters", dependencies=[scoped("read")])
    async def get_clusters(
        cursor: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        offset: Annotated[int, Query(ge=0, le=10**9, description="instead of a cursor")] = 0,
    ) -> Any:
        """Clusters of the last sweep, worst first."""
        found = await aside(shoal.cluster_list)
        some, more = part(found, f"o{offset}" if cursor is None else cursor, limit)
        return {"clusters": some, "total": len(found), "next": more}

    @app.get("/v1/clusters/{cluster_id}", dependencies=[scoped("read")])
    async def get_cluster(cluster_id: str) -> Any:
        """Its evidence, timeline, money and proposed action."""
        case = await aside(shoal.case, cluster_id)
        if case is None:
            raise not_found("cluster", cluster_id)
        return msgspec.to_builtins(case)

    @app.get("/v1/clusters/{cluster_id}/members", dependencies=[scoped("read")])
    async def get_members(
        cluster_id: str,
        cursor: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    ) -> Any:
        """Its accounts."""
        members = await aside(shoal.members_of, cluster_id)
        if members is None:
            raise not_found("cluster", cluster_id)
        some, more = part(members, cursor, limit)
        return {"cluster_id": cluster_id, "members": some, "total": len(members), "next": more}

    @app.get("/v1/parity", dependencies=[scoped("admin")])
    async def get_parity() -> Any:
        """Recompute served vectors from the log; takes as long as a replay of it."""
        return msgspec.to_builtins(await on("long", parity, shoal))

    @app.post("/v1/sweep")
    async def post_sweep(_: Annotated[str, scoped("admin")]) -> Any:
        """Look at the links now instead of within seconds."""
        found = await sweep()
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
        cursor: CaseCursor = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Any:
        """Cases, newest first. `next_cursor` is `next` under its first name."""
        found = await aside(shoal.records.list_cases, status, cursor, limit)
        return {
            "cases": found.cases,
            "next": found.next_cursor,
            "next_cursor": found.next_cursor,
        }

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
    async def get_canaries(
        cursor: Cursor = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> Any:
        """Marked prompts, oldest first."""
        some, more = part(await aside(shoal.records.list_canaries), cursor, limit)
        return {"canaries": some, "next": more}

    @app.post("/v1/canaries", status_code=201)
    async def post_canary(body: CanaryIn, caller: Annotated[str, scoped("act")]) -> Any:
        mark = await aside(lambda: shoal.canary_mark(body.prompt_id))
        try:
            canary = await aside(
                lambda: shoal.records.add_canary(mark, body.station, body.note, by=caller)
            )
        except r.MarkInUse:
            raise Problem(
                409, "Known already", "this prompt is a canary already: GET /v1/canaries"
            ) from None
        shoal.canaries |= {mark}  # another set: one may be walked through on another thread
        return canary

    # --- what is decided, as it is decided

    @app.get(
        "/v1/decisions/stream",
        dependencies=[scoped("read")],
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def get_decisions(
        request: Request,
        action: Literal["challenge", "throttle", "review", "suspend"] = "challenge",
        last_event_id: Annotated[
            str | None, Header(max_length=64, description="go on after this message")
        ] = None,
    ) -> Response:
        """Decisions of this action or a more severe one, as server-sent events, as they are made.

        `id`, `event: decision`, `data: {event_id, account_id, occurred_at, decision}`. The last ten
        thousand are kept for who comes back; `event: gap` says that some between are gone, `event:
        dropped` that this listener was too slow.
        """
        headers = dict(request.scope["headers"])

        async def welcome() -> bool:
            try:
                (await admit("GET", headers)).must("read")
            except (Problem, Unavailable):
                return False
            return True

        return Listening(decisions, last_event_id, Action[action], welcome)

    # --- keys

    @app.get("/v1/keys", dependencies=[scoped("admin")])
    async def get_keys(
        cursor: Cursor = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> Any:
        """API keys without their secrets, oldest first, revoked ones too."""
        some, more = part(await aside(shoal.records.list_keys), cursor, limit)
        return {"keys": some, "next": more}

    @app.delete("/v1/keys/{key_id}")
    async def delete_key(key_id: str, caller: Annotated[str, scoped("admin")]) -> Any:
        """Revoke a key; it ends at once."""
        key = await aside(lambda: shoal.records.revoke_key(key_id, by=caller))
        await on("gate", gate.revoked, key_id)
        return key

    # --- the operator's

    @app.get("/healthz")
    async def healthz() -> Any:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> Response:
        """Whether events should be sent here; if not, why, a `{code, detail}` a reason."""
        reasons = vitals.not_ready()
        if reasons:
            detail = "; ".join(x["detail"] for x in reasons)
            return Problem(503, "Not ready", detail, {"Retry-After": "1"}, reasons=reasons).answer()
        return JSONResponse(
            {
                "status": "standby" if shoal.standby else "ready",
                "events": shoal.accepted,
                "model": shoal.model.version if shoal.model else None,
                "feature_hash": shoal.engine.catalog.hash,
                "notes": vitals.notes(),
            }
        )

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(vitals.scrape(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/session")
    async def get_session(request: Request) -> Any:
        """Who asks, what he may do, and for a browser's session when it ends and its CSRF token."""
        caller: Caller = request.state.caller
        session = sessions.of(dict(request.scope["headers"]))
        return {
            "name": caller.name,
            "scopes": sorted(caller.scopes if caller.scopes is not None else get_args(r.Scope)),
            "ends_at": session.ends_at if session else None,
            "csrf": session.csrf if session else None,
        }

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return page("docs.html", paths=app.openapi()["paths"])

    add_console(app, shoal, sessions, admit, aside, vitals.refused)

    make = app.openapi
    app.openapi = lambda: app.openapi_schema or complete(make())  # type: ignore[method-assign]
    return app
