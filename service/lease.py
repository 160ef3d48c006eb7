"""Who writes to a log: a lease that runs out, and a token that only grows.

    {shoal:log}:lease   string  the name of the writer; gone LEASE_S after he was last heard of
    {shoal:log}:token   string  the number of times that a writer has changed

A lease alone would not do: whoever holds it may sleep through its end (a paused process, a stolen
core) and write when he wakes. So each writer takes a token, one higher than the last, and an append
carries it: the server itself refuses one that is not the latest (service/log.py). Taking a
lease therefore ends the writing of whoever had it, at once and for good.
"""

import redis

from service.log import STREAM

LEASE_S = 5.0  # how long a writer may be silent before a standby takes over
RENEWALS = 5  # how often a lease is renewed while it lasts

# KEYS: lease, token. ARGV: name, ms, whether to take it from a living holder. Answers the token, or 0.
_TAKE = """
if ARGV[3] == '0' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call('INCR', KEYS[2])
"""

# KEYS: lease, token. ARGV: name, ms, our token. Answers whether we are still the writer.
_RENEW = """
if redis.call('GET', KEYS[2]) ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""


# The same, and nothing that we have sent so far is taken any more. Answers our next token, or 0.
_ADVANCE = """
if redis.call('GET', KEYS[2]) ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call('INCR', KEYS[2])
"""


class Lease:
    """The lease of the log on this client, under this name."""

    def __init__(self, client: redis.Redis, name: str, stream: str = STREAM) -> None:
        self._client, self._name = client, name
        self._keys = (f"{stream}:lease", f"{stream}:token")

    def take(self, by_force: bool = False) -> int | None:
        """The new token; None while somebody holds the lease, unless it is taken by force."""
        token = self._ask(_TAKE, int(by_force))
        return token or None

    def renew(self, token: int) -> bool:
        """Stay the writer; False when somebody else is."""
        return bool(self._ask(_RENEW, token))

    def advance(self, token: int) -> int | None:
        """Stay the writer under the next token; None when somebody else is.

        An append that was given up may still be on its way: the server refuses it from here on.
        """
        return self._ask(_ADVANCE, token) or None

    def _ask(self, script: str, last: int) -> int:
        told = (self._name, int(LEASE_S * 1000), last)
        return int(self._client.eval(script, 2, *self._keys, *told))
