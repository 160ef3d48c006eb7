"""Work that runs by itself: honest people whose accounts keep a machine's hours and pace."""

from dataclasses import replace

from synth.account import Account, Truth
from synth.agenda import Process
from synth.cohort import group_id, groups
from synth.conversation import Conversation
from synth.habits import Own, Tempo, hold
from synth.honest import Consumers, appetite, enter
from synth.people import DAY, HOUR, Person
from synth.signup import papers
from synth.stage import Stage, Suite

_NIGHT = Tempo(300, 0.999, 16_000, 1_800, 330, fast_ms=40_000)
_NIGHT_TURNS = (200, 480)
_NIGHT_MODELS = ("lagoon-4", "lagoon-4", "lagoon-mini-2")  # the largest would not last


def overnight_agent(stage: Stage, consumers: Consumers, count: int) -> None:
    """Working people who let the agent run alone some nights.

    Like a busy station: twenty active hours, a full quota window, a machine's pace.
    """
    dice = stage.dice
    for _ in range(count):
        person = stage.people.make(mode="terminal", dear=0)
        plan = dice.weighted((("max", 7.0), ("payg", 2.0), ("pro", 1.0)))
        account = stage.account(plan, Truth(cohort="overnight_agent"))
        since = enter(stage, person, account, papers(stage, person), veteran=0.9)
        first = stage.start // DAY * DAY - person.offset_ms + 22 * HOUR
        nights = [at for at in range(first, stage.end - 4 * HOUR, DAY) if at > since + HOUR]
        for night in dice.sample(nights, min(len(nights), dice.randint(1, 2))):
            evening = night + int(2 * HOUR * dice.random())
            stage.agenda.start(evening, _night(stage, evening, account, person))


def _night(stage: Stage, at: int, account: Account, person: Person) -> Process:
    dice = stage.dice
    rig = replace(person.rigs[0], models=_NIGHT_MODELS)
    talk = Conversation(dice, rig, dice.pick(person.workspaces))
    hold(stage, at, talk, Own(stage, account, person), _NIGHT, dice.randint(*_NIGHT_TURNS))
    yield from ()


_SUBAGENT = Tempo(7, 0.998, 9_000, 2_500, 300, sigma=0.5)
_SUBAGENTS = (10, 30)
_FAN_OUTS_A_DAY = 0.5
_FAN_OUT_MS = 25_000  # within which its subagents start


def subagent_power_user(stage: Stage, consumers: Consumers, count: int) -> None:
    """One person and one folder, ten to thirty subagents at once.

    Like many tenants in one account: concurrency far above a person's.
    """
    dice = stage.dice
    for _ in range(count):
        person = stage.people.make(mode="terminal")
        plan = dice.weighted((("max", 7.0), ("payg", 2.0), ("pro", 1.0)))
        account = stage.account(plan, Truth(cohort="subagent_power_user"))
        since = enter(stage, person, account, papers(stage, person), veteran=0.8)
        day = (since + person.offset_ms) // DAY * DAY - person.offset_ms
        first = True
        while day < stage.end:
            times = person.moments(dice, day, _FAN_OUTS_A_DAY)
            if first and not times:  # nobody belongs here who never does it
                times = [since + 2 * HOUR + int(dice.spread(8 * HOUR))]
            for at in times:
                if since + HOUR < at < stage.end:
                    first = False
                    stage.agenda.start(at, _fan_out(stage, at, account, person))
            day += DAY


def _fan_out(stage: Stage, at: int, account: Account, person: Person) -> Process:
    dice = stage.dice
    rig, place = person.rigs[0], person.workspaces[0]
    caller, session = Own(stage, account, person), dice.getrandbits(62) | 1
    for _ in range(dice.randint(*_SUBAGENTS)):
        talk = Conversation(dice, rig, place)
        talk.session = session
        hold(stage, at + dice.randrange(_FAN_OUT_MS), talk, caller, _SUBAGENT)
    yield from ()


_QUESTION = Tempo(1, 1.0, 420, 420, 380, spread=0.7)
_RUNS_A_DAY = 0.45


def benchmark_researcher(stage: Stage, consumers: Consumers, count: int) -> None:
    """Laboratories that put public question sets to the models: the same prompts through the same
    public harness, in the same order, on accounts of unrelated owners.

    Like distillation: high volume, one template, systematic coverage.
    """
    dice = stage.dice
    for size in groups(stage, count, 1, 4):
        head = stage.people.make()
        door = stage.plan.egress(dice.pick(("education", "hosting")), head.country.code)
        group = group_id(stage)
        for _ in range(size):
            person = stage.people.make(head.country, mode="application")
            person.networks = [(door, 0.8), (person.home, 1.0)]
            account = stage.account(
                dice.pick(("payg", "payg", "enterprise")),
                Truth(cohort="benchmark_researcher", group_id=group),
            )
            since = enter(stage, person, account, papers(stage, person), appetite(stage, "web"),
                          veteran=0.7)  # fmt: skip
            at = since + HOUR + int(dice.spread(6 * HOUR))
            while at < stage.end:
                stage.agenda.start(at, _run(stage, at, account, person, dice.zipf(stage.suites)))
                at += int(dice.spread(DAY / _RUNS_A_DAY))


def _run(stage: Stage, at: int, account: Account, person: Person, suite: Suite) -> Process:
    """Question after question, each a conversation of its own."""
    dice = stage.dice
    if account.suspended:
        return
    rig = stage.people.rig(person, person.devices[0], person.rigs[0].program, suite.template)
    caller = Own(stage, account, person)
    pace, count = dice.spread(2_500), dice.randint(len(suite.questions) // 4, len(suite.questions))
    for number in range(count):
        talk = Conversation(dice, rig, "")
        talk.script = suite.questions[number : number + 1]
        hold(stage, at, talk, caller, _QUESTION, 1)
        at += int(dice.spread(pace))
    yield from ()
