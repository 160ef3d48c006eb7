"""Persons and households that resemble an operator: each shares something strong, for a good reason.

A family has one card; a freelancer has two accounts and swaps when one is limited; an expatriate
pays from one country and lives in another; a number or a device was somebody else's last week. None
of them has an `org_id` that would say who belongs together. Crowds are in `crowds`, work that runs
by itself in `machines`, organisations in `orgs`.
"""

from synth import calls as c
from synth.account import Account, Truth
from synth.agenda import Process
from synth.cohort import Several, Tool, group_id, groups, second_papers, through
from synth.conversation import Caller
from synth.geography import any_country, offset_ms
from synth.goods import Phone
from synth.habits import LEADS_S, refresh
from synth.honest import VETERANS, Consumers, appetite, arrival, enter, plan_of, settle
from synth.people import DAY, HOUR, MINUTE, Person
from synth.signup import papers
from synth.stage import Stage


def vpn_traveller(stage: Stage, consumers: Consumers, count: int) -> None:
    """People who are abroad or behind a VPN: another country every few conversations.

    Like a station: the exits of a service serve many strangers, and some are a proxy vendor's whose
    other customers are operators.
    """
    dice = stage.dice
    services = [
        [stage.plan.egress("vpn") for _ in range(dice.randint(4, 9))]
        for _ in range(1 + count // 25)
    ]
    for _ in range(count):
        person = stage.people.make()
        vendor = dice.pick(stage.market.proxy_vendors)
        exits = dice.pick(services)
        away = [(dice.pick(exits), 1.0) for _ in range(dice.randint(2, 5))]
        away.append((vendor.buy(0.1), 1.0))
        person.networks = [(person.home, 0.35), *away]
        consumers.one("vpn_traveller", person)


def expatriate(stage: Stage, consumers: Consumers, count: int) -> None:
    """Language, telephone and bank of one country, a life in another, often in a shared flat.

    Like a carder's and a mule's accounts: card, number and language do not fit the address.
    """
    dice = stage.dice
    for size in groups(stage, count, 1, 3):
        origin, host = any_country(dice), any_country(dice)
        while host is origin:
            host = any_country(dice)
        flat = stage.plan.egress("residential", host.code)
        group = group_id(stage)
        for _ in range(size):
            person = stage.people.make(origin)
            person.networks = [(flat, 0.75), (stage.plan.mobile(host.code), 1.0)]
            person.language = origin.language
            if dice.chance(0.75):  # the computer knows where it is
                person.zone = dice.pick(host.zones)
            person.offset_ms = offset_ms(host.zones[0], stage.start)
            stage.people.equip(person)
            account = stage.account(
                plan_of(stage, person), Truth(cohort="expatriate", group_id=group)
            )
            dossier = papers(stage, person, paying=account.plan.name != "free" or dice.chance(0.5))
            if dossier.phone and dice.chance(0.4):
                dossier.phone = stage.market.phone(host.code)
            if dossier.card and dice.chance(0.25):
                dossier.card = stage.market.card(host.code)
            dossier.billing_country = host.code if dice.chance(0.5) else origin.code
            enter(stage, person, account, dossier, veteran=0.25)


def prepaid_user(stage: Stage, consumers: Consumers, count: int) -> None:
    """Migrants, refugees, people without a bank: virtual or prepaid cards, internet numbers, the
    address and the wireless network of a shelter, sometimes its computer.

    Like a farm: card issuers and number blocks of the vendors, several sign-ups from one address.
    """
    dice = stage.dice
    bins = stage.market.virtual_bins(7)
    for size in groups(stage, count, 3, 9):
        host = any_country(dice)
        shelter = stage.plan.egress(dice.pick(("residential", "business")), host.code)
        street = f"{dice.pick(stage.pools.streets)}, {dice.randrange(10_000, 99_999)}"
        computer = stage.people.device()
        group = group_id(stage)
        for _ in range(size):
            person = stage.people.make()
            person.networks = [(shelter, 0.6), (stage.plan.mobile(host.code), 1.0)]
            if dice.chance(0.25):
                person.devices[-1] = computer
            stage.people.equip(person)
            plan = dice.weighted((("free", 5.0), ("pro", 3.0), ("payg", 2.0)))
            account = stage.account(plan, Truth(cohort="prepaid_user", group_id=group))
            dossier = papers(stage, person, kyc=0.5)
            dossier.egress, dossier.billing_address = shelter, street
            dossier.billing_country = host.code
            dossier.card = stage.market.virtual_card(dice.pick(bins), host.code)
            dossier.avs = (("unavailable", 5.0), ("match", 3.0), ("mismatch", 1.0))
            dossier.declines = 0.2
            if dice.chance(0.7):
                dossier.phone = _internet_number(stage)
            enter(stage, person, account, dossier, veteran=0.25)


def _internet_number(stage: Stage) -> Phone:
    """A number of a voice-over-IP service, of whatever country has them."""
    while True:
        phone = stage.market.phone(any_country(stage.dice).code)
        if phone.line_type == "voip":
            return phone


def recycled_phone(stage: Stage, consumers: Consumers, count: int) -> None:
    """People whose new number was somebody else's until lately, or an SMS farm's.

    Like a farm's second use of a number.
    """
    for _ in range(count):
        person = stage.people.make()
        account = stage.account(plan_of(stage, person), Truth(cohort="recycled_phone"))
        dossier = papers(stage, person, paying=account.plan.name != "free")
        dossier.phone = dossier.phone or stage.market.phone(person.country.code)
        at = arrival(stage, person)
        consumers.second_hand_number(at, dossier)
        enter(stage, person, account, dossier, veteran=0, at=at)


def resold_device(stage: Stage, consumers: Consumers, count: int) -> None:
    """People who buy a used computer in these days, as new customers or as old ones.

    Like a merchant's device, on which one account after the other was opened.
    """
    dice = stage.dice
    for _ in range(count):
        person = stage.people.make(mode=dice.pick(("terminal", "editor", "web")))
        account = stage.account(plan_of(stage, person), Truth(cohort="resold_device"))
        dossier = papers(stage, person, paying=account.plan.name != "free")
        at = max(arrival(stage, person), stage.start + 20 * HOUR)
        old = dice.chance(VETERANS)
        consumers.second_hand_device(at, person, None if old else dossier)
        enter(stage, person, account, dossier, veteran=old, at=at + int(dice.spread(2 * HOUR)))


def family(stage: Stage, consumers: Consumers, count: int) -> None:
    """One household: one address, one card, a shared tablet, sometimes one phone.

    Like a car pool or a carder: a card and a device on several accounts.
    """
    dice = stage.dice
    for size in groups(stage, count, 2, 5):
        head = stage.people.make()
        card = stage.market.card(head.country.code)
        phone = stage.market.phone(head.country.code)
        address = f"{dice.pick(stage.pools.streets)}, {dice.randrange(10_000, 99_999)}"
        group = group_id(stage)
        for _ in range(size):
            person = stage.people.make(head.country)
            person.last = head.last
            person.networks[0] = head.networks[0]
            if dice.chance(0.5):
                person.devices[-1] = head.devices[-1]
                stage.people.equip(person)
            dossier = papers(stage, person)
            dossier.card, dossier.billing_address = card, address
            dossier.egress = head.home
            if dice.chance(0.4):
                dossier.phone = phone
            account = stage.account(plan_of(stage, person), Truth(cohort="family", group_id=group))
            enter(stage, person, account, dossier)


def freelancer(stage: Stage, consumers: Consumers, count: int) -> None:
    """One person, two own accounts (work and private), conversations carried across a limit.

    Like a station: one account continues what another began, and answers ids minted for it.
    """
    dice = stage.dice
    for size in groups(stage, count, 2, 2):
        person = stage.people.make(mode=dice.pick(("terminal", "editor")))
        truth = Truth(cohort="freelancer", group_id=group_id(stage))
        both = Several(stage, person)
        first = papers(stage, person)
        for index in range(size):
            account = stage.account(dice.pick(("free", "pro", "pro")), truth)
            dossier = second_papers(stage, person, first) if index else first
            caller: Caller | None = None if index else both  # the second is for other things
            mean = appetite(stage, person.mode) * (0.5 if index else 1.6)
            enter(stage, person, account, dossier, mean, caller=caller, ready=both.add)


_TOOL_RULES = (c.SWAP, c.SWAP, c.ROUND_ROBIN, c.LRU, c.FILL_FIRST)


def personal_pool(stage: Stage, consumers: Consumers, count: int) -> None:
    """One user, two to five own accounts behind a command-line pool tool. A provider may dislike
    it; nobody else is served and nothing is sold.

    Like a small station: relay software, rotation, polling and refreshing of all accounts in a row.
    """
    dice = stage.dice
    for size in groups(stage, count, 2, 5):
        person = stage.people.make(mode="terminal")
        if dice.chance(0.6):
            relay = dice.pick(stage.software.relays)
            through(person, relay.tls, relay.order())
        rule = dice.pick(_TOOL_RULES)
        # who swaps by hand changes the key in his client; the others run a small relay
        tool = Several(stage, person, rule, relay=rule != c.SWAP,
                       sticky_ms=0 if dice.chance(0.6) else HOUR, sliding=1, cool_ms=MINUTE,
                       overload_ms=MINUTE, limit_ms=5 * MINUTE, obeys=1)  # fmt: skip
        truth = Truth(cohort="personal_pool", group_id=group_id(stage))
        accounts = [
            stage.account(dice.weighted((("pro", 6.0), ("max", 1.5), ("free", 1.5))), truth)
            for _ in range(size)
        ]
        first = papers(stage, person)
        mean = appetite(stage, person.mode) * 2
        at = stage.start if dice.chance(VETERANS) else arrival(stage, person)
        since = at
        for index, account in enumerate(accounts):
            dossier = second_papers(stage, person, first) if index else first
            old = at == stage.start
            # the first is there before the others, and he works through it
            enter(stage, person, account, dossier, 0 if index else mean, veteran=old, at=at,
                  caller=tool, ready=tool.add)  # fmt: skip
            at += int(dice.spread(20 * MINUTE) if dice.chance(0.5) else dice.spread(1.5 * DAY))
        worker = Tool(stage, person, accounts, person.rigs[0], noted=dice.chance(0.5))
        stage.agenda.start(since + HOUR, _tend(stage, since + HOUR, accounts, person, worker))


def _tend(stage: Stage, at: int, accounts: list[Account], person: Person, tool: Tool) -> Process:
    """What a pool tool does by itself: refreshes all tokens in a row, looks at all quotas, now and
    then says hello on each account."""
    dice = stage.dice
    lead_s, polls, probes = dice.pick(LEADS_S), dice.chance(0.6), dice.chance(0.4)
    while at < stage.end:
        yield at
        now = at
        for account in accounts:
            if account.events and not account.suspended and dice.chance(0.8):
                now += int(dice.spread(1_500))
                refresh(stage, now, account, person.network(dice).fragment(), lead_s)
        if polls:
            tool.poll(now)
        if probes and dice.chance(0.4):
            tool.probe(now + int(dice.spread(20_000)))
        at += int(dice.spread(7 * HOUR))


def new_employer_account(stage: Stage, consumers: Consumers, count: int) -> None:
    """People who had an account of their own and get one from their employer: the same computer,
    home and repositories on accounts of two owners, now and then in one conversation.

    Like a station: end users fan out over accounts of different owners.
    """
    dice = stage.dice
    for size in groups(stage, count, 4, 16):
        boss = stage.people.make()
        domain, org = stage.pools.domain(dice), f"org_{dice.token(80)}"
        office = stage.plan.egress("business", boss.country.code)
        card = stage.market.card(boss.country.code)
        group = group_id(stage)
        for index in range(0, size, 2):
            person = stage.people.make(boss.country, mode=dice.pick(("terminal", "editor")))
            person.networks.append((office, 1.5))
            truth = Truth(cohort="new_employer_account", group_id=group)
            joins = stage.moment(0.15, 0.75)
            first = papers(stage, person)
            both = Several(stage, person)
            if index + 1 < size:
                own = stage.account(
                    dice.weighted((("free", 3.0), ("pro", 6.0), ("max", 1.0))), truth
                )
                until = joins + int(dice.spread(2 * DAY)) if dice.chance(0.55) else None
                enter(stage, person, own, first, veteran=0.8, until=until,
                      at=stage.start + int(dice.random() * (joins - stage.start)),
                      ready=both.add)  # fmt: skip
            paid = stage.account("team", truth, org)
            dossier = second_papers(stage, person, first)
            dossier.email = f"{person.first.lower()}.{person.last.lower()}@{domain}"
            dossier.card, dossier.channel = card, dice.pick(("sso", "invite"))
            dossier.identity = None
            # a third of them resume old work, and go on elsewhere when the new account is limited
            caller: Caller | None = both if dice.chance(0.3) else None
            settle(stage, person, paid, appetite(stage, person.mode), dossier=dossier,
                   at=min(joins, stage.end - HOUR), caller=caller, ready=both.add)  # fmt: skip
