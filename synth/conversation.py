"""A conversation: turns, pauses, the rolling prefix chain, the prompt cache, minted ids, cost.

Everybody converses through this file, honest or not: what differs is who pays (the *caller*), on
which account a call lands (the *lane*), and what the lane lets through. Links and provider-made
ids are random tokens with the right equalities: a link stands for the history up to it, so that
the same history has the same link wherever it is sent.

The prompt cache belongs to an account. A call reads what this account has cached of the history
and writes the rest, so a conversation that moves to another account pays for its history again;
the program's own prefix (system prompt and tools) may be warm there because of somebody else.
"""

from typing import Protocol

from synth.account import Account
from synth.dice import TABLE_BITS, Dice
from synth.feed import Feed
from synth.people import Rig
from synth.provider import Provider

# List prices in USD per token: input, output. A cache read costs a tenth of the input price and a
# write 1.25 times as much.
PRICES: dict[str, tuple[float, float]] = {
    "lagoon-mini-2": (0.8e-6, 4e-6),
    "lagoon-4": (3e-6, 15e-6),
    "lagoon-max-4": (12e-6, 60e-6),
}
_CACHE_TTL = {"5m": 300_000, "1h": 3_600_000}
_CONTEXT_MAX = 170_000
_REFS_CARRIED = 6
_COMMA = '","'  # between the strings of a JSON list


class Lane:
    """One conversation on one account: what every call there says, and what is said once."""

    __slots__ = ("account", "always", "cached", "cached_until", "once", "told")

    def __init__(self, account: Account, always: str, once: str) -> None:
        self.account, self.always, self.once = account, always, once
        self.told = False
        self.cached = 0
        self.cached_until = 0


class Conversation:
    __slots__ = (
        "after", "caches", "chain", "chatty", "context", "env", "fixed", "input_price", "lanes",
        "length", "model", "output_price", "pinned", "pinned_until", "program_tokens", "refs",
        "rig", "root", "session", "system_id", "ttl", "unsent", "user",
    )  # fmt: skip

    def __init__(self, dice: Dice, rig: Rig, env: str, *, user: str = "") -> None:
        """`env` is the workspace fragment, `user` one that names the end user."""
        self.rig, self.env, self.user = rig, env, user
        kind = rig.program.kind
        self.model = dice.pick(rig.models)
        self.input_price, self.output_price = PRICES[self.model]
        template = rig.template
        self.system_id = template.system_id if template else ""
        self.program_tokens = template.tokens if template else 0
        self.context = 0  # tokens of the history, program included
        self.chain: list[str] = []
        self.unsent: list[str] = []
        self.after = ""  # the link after the last answer
        self.length = 0
        self.root = dice.token()
        self.refs: list[str] = []
        self.session = dice.token(96)
        self.chatty = kind in ("cli", "ide")  # calls tools: machine tempo, minted ids
        self.caches = rig.cache_ttl is not None
        self.ttl = _CACHE_TTL["1h" if rig.cache_ttl == "1h" else "5m"]
        self.lanes: dict[str, Lane] = {}
        self.pinned: object | None = None  # the caller's own memory of where it went
        self.pinned_until = 0
        self.fixed = f'{rig.fixed},"model":"{self.model}","chain_root":"{self.root}"'

    @property
    def once(self) -> str:
        """What is said once a conversation on each account: the client, its prompt, the place."""
        return self.rig.once + self.env


class Caller(Protocol):
    """Who pays for a conversation, and on which account its next call lands."""

    switches: int  # other accounts that one call may try
    intercepts: bool  # answers a client's small auxiliary calls itself

    def lane(self, at: int, talk: Conversation) -> Lane | None:
        """Where the call of `at` goes; None if nothing is available."""

    def refused(self, at: int, talk: Conversation, lane: Lane, status: int, wait_s: float) -> None:
        """The provider refused a call on this lane; `wait_s` is what it asked for, or 0."""


TABLE_MASK = (1 << TABLE_BITS) - 1
SERVED, REFUSED, NOWHERE = 0, 1, 2


class Line:
    """The telephone line to the provider: makes calls and writes request events.

    Nine events in ten are written here. All ids of a call are cut from one draw of random bits.
    """

    def __init__(self, dice: Dice, provider: Provider, feed: Feed) -> None:
        self.dice, self.provider, self.feed = dice, provider, feed

    def call(
        self, at: int, talk: Conversation, caller: Caller, fresh_tokens: int, answer_tokens: int,
        note: str = "",
    ) -> tuple[int, int, float]:  # fmt: skip
        """Send the next message; returns when it ended, how it went, and the wait asked for (s).

        Args:
            fresh_tokens: size of the new message (tool results included).
            answer_tokens: size of the answer.
            note: a fragment for this call only (kind, prompt_id).
        """
        ids = self.dice.getrandbits(296).to_bytes(37, "little").hex()
        if not talk.unsent:  # a message that is tried again is the same message
            if talk.length:
                talk.unsent = [*talk.chain[-2:], talk.after, ids[:16]]
            else:
                talk.unsent = [talk.root]
        written = f'{note},"chain":["{_COMMA.join(talk.unsent)}"],"chain_length":{talk.length + 1}'
        if talk.refs:
            written = f'{written},"minted_refs":["{_COMMA.join(talk.refs)}"]'
        wait = 0.0
        for attempt in range(1 + caller.switches):
            lane = caller.lane(at, talk)
            if lane is None:
                return at, NOWHERE, wait or 60.0
            refusal = self.provider.admit(lane.account, at)
            if refusal is None:
                ended = self._serve(at, talk, lane, fresh_tokens, answer_tokens, written, ids)
                talk.chain = talk.unsent
                talk.unsent = []
                talk.length += 2
                return ended, SERVED, 0.0
            status, error, asked = refusal
            wait = asked or 0.0
            at = self._refuse(at, lane, status, error, asked, written, attempt)
            caller.refused(at, talk, lane, status, wait)
        return at, REFUSED, wait

    def _serve(
        self, at: int, talk: Conversation, lane: Lane, fresh: int, answer: int, written: str,
        ids: str,
    ) -> int:  # fmt: skip
        dice, account = self.dice, lane.account
        bits = dice.getrandbits(32)  # cut into small independent numbers below
        history = talk.context or talk.program_tokens
        if at < lane.cached_until:
            read = lane.cached if lane.cached < history else history
        elif at < account.warm_until and account.warm_system == talk.system_id:
            read = talk.program_tokens
        else:
            read = 0
        total = history + fresh
        plain = 3 + (bits & 15 if talk.chatty else 0)
        write = total - read
        if write < 1024 or not talk.caches:
            plain, write = plain + write, 0
        else:
            until = at + talk.ttl
            lane.cached, lane.cached_until = total, until
            account.warm_system, account.warm_until = talk.system_id, until
        tail = ""
        if not bits >> 4 & 63:
            answer = 1 + answer // 4
            tail = ',"aborted":true'
        cost = talk.input_price * (plain + 1.25 * write + 0.1 * read) + talk.output_price * answer
        paid, used = self.provider.charge(account, cost)
        first = int((900 + total * 0.012) * dice.table[bits >> 10 & TABLE_MASK])
        lasted = first + answer * (9 + (bits >> 22 & 15))
        ended = at + lasted
        talk.after = after = ids[16:32]
        talk.context = total + answer if total + answer < _CONTEXT_MAX else _CONTEXT_MAX
        if talk.chatty and bits >> 26 < 42:  # two answers in three call a tool
            ref = f"toolu_{ids[56:74]}"
            tail = f'{tail},"emitted_refs":["{ref}"]'
            talk.refs = [*talk.refs[-_REFS_CARRIED + 1 :], ref]
        once = "" if lane.told else lane.once
        lane.told = True
        account.events += 1
        self.feed.send(
            ended,
            f'{{"event_id":"evt_{ids[32:56]}","type":"request","occurred_at":{ended}'
            f'{lane.always}{once}{account.window_said},"window_used":{used:.4f},"status":200'
            f',"duration_ms":{lasted},"ttft_ms":{first},"input_tokens":{plain}'
            f',"output_tokens":{answer},"cache_read_tokens":{read},"cache_write_tokens":{write}'
            f',"cost_usd":{cost:.6f},"paid_usd":{paid}{written},"chain_after":"{after}"{tail}',
        )
        return ended

    def _refuse(
        self, at: int, lane: Lane, status: int, error: str, asked: float | None, written: str,
        attempt: int,
    ) -> int:  # fmt: skip
        lasted = int(self.dice.spread(240 if status != 529 else 900))
        once = "" if lane.told else lane.once
        lane.told = True
        account = lane.account
        account.events += 1
        retry = f',"retry_after_s":{asked:g}' if asked is not None else ""
        tries = f',"retry_count":{attempt}' if attempt else ""
        window = account.window_said if status == 429 else ""
        self.feed.send(
            at + lasted,
            f'{{"event_id":"evt_{self.dice.getrandbits(96):024x}","type":"request"'
            f',"occurred_at":{at + lasted}{lane.always}{once}{window},"status":{status}'
            f',"error":"{error}","duration_ms":{lasted}{retry}{tries}{written}',
        )
        return at + lasted
