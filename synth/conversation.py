"""A conversation as it is begun: which program, on what, through whom. The exchange plays it."""

from struct import Struct
from typing import Protocol

from synth import calls as c
from synth.dice import Dice
from synth.exchange import MODEL_NUMBER, Exchange
from synth.people import Rig


class Caller(Protocol):
    """Who pays for a conversation: a pool of accounts (synth/calls.py), and a place in it.

    `seat` is not -1 for a call that goes to this very seat whatever happens; `customer` is not -1 for
    somebody whom the pool may pin to a seat.
    """

    pool: int
    seat: int
    customer: int

    def net(self) -> int:
        """The number of the network from which the next conversation is held; -1: the seat's own."""


class Conversation:
    """What does not change from turn to turn."""

    __slots__ = ("env", "flags", "model", "note", "rig", "script", "session", "user")

    def __init__(self, dice: Dice, rig: Rig, env: str, *, user: str = "") -> None:
        """`env` is the workspace fragment, `user` one that names the end user."""
        self.rig, self.env, self.user = rig, env, user
        self.model = dice.pick(rig.models)
        self.flags = rig.flags
        # what the edge can tell of its calls' purpose
        self.note = "main" if rig.flags & c.CHATTY and dice.random() < 0.8 else ""
        self.session = 0  # 0: one of its own
        self.script = _NO_SCRIPT  # the numbers of set prompts, one a turn

    def given(self, exchange: Exchange, at: int, caller: Caller, tempo: int, turns: int) -> bytes:
        """The row that begins it at `at`, as synth/calls.py lists the columns; 0 turns: as the tempo has it."""
        word, model = exchange.fragment, self.model
        return _own(
            at, caller.pool, caller.seat, caller.customer, tempo, turns, caller.net(), MODEL_NUMBER[model],
            exchange.models[model], exchange.notes[self.note], self.flags, self.script.start, len(self.script),
            self.session, word(self.env), word(self.user),
        ) + (self.rig.row or self.rig.inked(exchange))  # fmt: skip


_own = Struct(f"{c.K_PROGRAM}q").pack  # the columns before those of the program
_NO_SCRIPT = range(c.NONE, c.NONE)
