"""Loaded before a service is forked: imports and compiled code that it then need not load itself."""

from served import a_ring

from detector.engine import Engine
from detector.policy import read_policy
from features.event import decode
from service.folder import OFFLINE

_engine = Engine(read_policy(), OFFLINE)
_engine.ingest([decode(line) for line in a_ring()])
_engine.sweep()
