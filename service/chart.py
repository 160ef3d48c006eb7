"""Charts as inline SVG: lines, dots with whiskers, bars, a network. Drawn here, so a page needs no script.

Colours are CSS classes of the page (`s0` … `s5`, `bad`, `quiet`), so that one drawing serves light, dark and
print. Every drawing carries a title and a description for those who do not see it. Units are
pixels of the drawing's own box; the page scales it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 560, 300
LEFT, TOP, BOTTOM = 62, 14, 44
LETTER = 7.2  # width of one at the lines' ends, about
ROW = 22  # of a chart with one line of text a row
LABEL_GAP = 14  # least distance of two labels at the right edge
SHADES = 6  # how many series the page has colours for

Point = tuple[float, float]


def percent(value: float) -> str:
    """0.5 as `50 %`, with two digits where a share is small."""
    return f"{100 * value:.2g} %" if abs(value) < 0.0995 else f"{100 * value:,.0f} %"


def plain(value: float) -> str:
    return f"{value:,.10g}"


def dollars(value: float) -> str:
    return f"${value:,.0f}" if value >= 10 or value == 0 else f"${value:,.2f}"


@dataclass(frozen=True, slots=True)
class Axis:
    """What runs along an edge; a log axis begins at `low` > 0."""

    label: str
    low: float
    high: float
    says: Callable[[float], str] = plain
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies, 0 at the beginning of the axis and 1 at its end; held within."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            tens = [10.0**e for e in range(first, last + 1)]
            return tens if len(tens) > 1 else [self.low, self.high]
        step = _step(self.high - self.low, 5)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [round((first + i) * step, 12) for i in range(count)]


def _step(span: float, most: int) -> float:
    """A round step (1, 2, 2.5 or 5 times a power of ten) that divides `span` into at most `most`."""
    if span <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(span / most))
    return next(power * m for m in (1, 2, 2.5, 5, 10) if span / (power * m) <= most)


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a chart; `shade` picks its colour, `marks` draws its points, `step` a staircase."""

    name: str
    points: Sequence[Point]
    shade: int = 0
    marks: bool = False
    step: bool = False
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Dot:
    """A row of a dot-and-whisker chart."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""
    bad: bool = False
    quiet: bool = False


def lines(
    title: str, about: str, series: Sequence[Series], x: Axis, y: Axis, mark: float | None = None
) -> Markup:
    """Series over x; `mark` is a level of y that matters, drawn across."""
    longest = max((len(one.name) for one in series), default=0)
    wide, tall = WIDTH - LEFT - 20 - LETTER * longest, HEIGHT - TOP - BOTTOM

    def place(point: Point) -> Point:
        return LEFT + x.at(point[0]) * wide, TOP + (1 - y.at(point[1])) * tall

    parts = [_frame(x, y, wide)]
    if mark is not None:
        at = place((x.low, mark))[1]
        parts.append(
            f'<line class="gate" x1="{LEFT}" x2="{LEFT + wide:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>'
        )
    labels: list[tuple[float, str, int]] = []
    for one in series:
        drawn = [place(p) for p in one.points]
        if not drawn:
            continue
        dash = ' stroke-dasharray="5 4"' if one.dashed else ""
        shade = f"s{one.shade % SHADES}"
        if len(drawn) > 1:
            parts.append(f'<path class="line {shade}"{dash} d="{_path(drawn, one.step)}"/>')
        if one.marks or len(drawn) == 1:
            parts += [
                f'<circle class="dot {shade}" cx="{a:.1f}" cy="{b:.1f}" r="3.5"/>' for a, b in drawn
            ]
        if one.name:
            labels.append((drawn[-1][1], one.name, one.shade % SHADES))
    parts += _labels(labels, LEFT + wide + 8, TOP, TOP + tall)
    return _svg(title, about, WIDTH, HEIGHT, parts)


def _path(points: Sequence[Point], step: bool) -> str:
    told, before = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"], points[0]
    for a, b in points[1:]:
        if step:
            told.append(f"H{a:.1f}V{b:.1f}")
        elif (round(a, 1), round(b, 1)) != (round(before[0], 1), round(before[1], 1)):
            told.append(f"L{a:.1f} {b:.1f}")
        before = (a, b)
    return "".join(told)


def _labels(labels: list[tuple[float, str, int]], x: float, top: float, bottom: float) -> list[str]:
    """Names at the lines' ends, pushed apart where they would touch."""
    labels = sorted(labels)
    placed: list[float] = []
    for at, _, _ in labels:
        placed.append(max(at, placed[-1] + LABEL_GAP) if placed else max(at, top + 6))
    over = placed[-1] - bottom if placed else 0
    if over > 0:
        placed = [at - over for at in placed]
        for i in range(len(placed) - 2, -1, -1):
            placed[i] = min(placed[i], placed[i + 1] - LABEL_GAP)
    return [
        f'<text class="name s{shade}" x="{x:.0f}" y="{at + 4:.1f}">{escape(name)}</text>'
        for at, (_, name, shade) in zip(placed, labels, strict=True)
    ]


def _frame(x: Axis, y: Axis, wide: float) -> str:
    tall = HEIGHT - TOP - BOTTOM
    parts = []
    for value in y.ticks():
        at = TOP + (1 - y.at(value)) * tall
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{LEFT + wide:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="tick end" x="{LEFT - 7}" y="{at + 4:.1f}">{escape(y.says(value))}</text>'
        )
    floor = TOP + tall
    parts.append(
        f'<line class="axis" x1="{LEFT}" x2="{LEFT + wide:.1f}" y1="{floor}" y2="{floor}"/>'
    )
    for value in x.ticks():
        at = LEFT + x.at(value) * wide
        parts.append(
            f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{floor}" y2="{floor + 4}"/>'
            f'<text class="tick mid" x="{at:.1f}" y="{floor + 17}">{escape(x.says(value))}</text>'
        )
    middle = LEFT + wide / 2
    parts.append(
        f'<text class="what mid" x="{middle:.0f}" y="{HEIGHT - 6}">{escape(x.label)}</text>'
    )
    parts.append(
        f'<text class="what mid" transform="translate(11 {TOP + tall / 2:.0f}) rotate(-90)">{escape(y.label)}</text>'
    )
    return "".join(parts)


def dots(
    title: str,
    about: str,
    rows: Sequence[Dot],
    x: Axis,
    gate: float | None = None,
    names: int = 170,
) -> Markup:
    """One row a dot with its interval; `gate` is a value of x not to be passed."""
    notes = 62 if any(r.note for r in rows) else 14
    wide, tall = WIDTH - names - notes, len(rows) * ROW
    height = tall + TOP + BOTTOM
    parts = []
    for value in x.ticks():
        at = names + x.at(value) * wide
        parts.append(
            f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{TOP + tall}"/>'
            f'<text class="tick mid" x="{at:.1f}" y="{TOP + tall + 16}">{escape(x.says(value))}</text>'
        )
    if gate is not None:
        at = names + x.at(gate) * wide
        parts.append(
            f'<line class="gate" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 4}" y2="{TOP + tall}"/>'
        )
    for i, row in enumerate(rows):
        y, shade = TOP + (i + 0.5) * ROW, "bad" if row.bad else "s5" if row.quiet else "s0"
        if row.low is not None and row.high is not None:
            a, b = (names + x.at(v) * wide for v in (row.low, row.high))
            parts.append(
                f'<line class="whisker {shade}" x1="{a:.1f}" x2="{b:.1f}" y1="{y}" y2="{y}"/>'
            )
        at = names + x.at(row.value) * wide
        parts.append(
            f'<circle class="dot {shade}" cx="{at:.1f}" cy="{y}" r="4"/>'
            f'<text class="tick end{" bad" if row.bad else ""}" x="{names - 10}" y="{y + 4}">{escape(row.name)}</text>'
        )
        if row.note:
            parts.append(
                f'<text class="tick end" x="{WIDTH - 2}" y="{y + 4}">{escape(row.note)}</text>'
            )
    middle = names + wide / 2
    parts.append(
        f'<text class="what mid" x="{middle:.0f}" y="{height - 8}">{escape(x.label)}</text>'
    )
    return _svg(title, about, WIDTH, height, parts)


def bars(
    title: str, about: str, rows: Sequence[tuple[str, float, float, str]], label: str
) -> Markup:
    """One row a pair (part, whole): the part full, the rest faint; the last entry is written at the end."""
    names, notes = 130, 130
    wide, tall = WIDTH - names - notes, len(rows) * ROW
    most = max((whole for _, _, whole, _ in rows), default=0) or 1.0
    parts = []
    for i, (name, part, whole, note) in enumerate(rows):
        y = TOP + i * ROW
        a, b = part / most * wide, whole / most * wide
        parts.append(
            f'<text class="tick end" x="{names - 10}" y="{y + 15}">{escape(name)}</text>'
            f'<rect class="rest" x="{names}" y="{y + 5}" width="{b:.1f}" height="12"/>'
            f'<rect class="part bad" x="{names}" y="{y + 5}" width="{a:.1f}" height="12"/>'
            f'<text class="tick" x="{names + b + 8:.1f}" y="{y + 15}">{escape(note)}</text>'
        )
    parts.append(f'<text class="what" x="{names}" y="{TOP + tall + 20}">{escape(label)}</text>')
    return _svg(title, about, WIDTH, TOP + tall + 28, parts)


PANEL_WIDTH, PANEL_HEIGHT = 208, 148


def panel(
    title: str,
    about: str,
    points: Sequence[tuple[float, float, str]],
    x: Axis,
    y: Axis,
    base: Point | None,
) -> Markup:
    """A small chart, one of many on the same axes: points joined in their order, the ends named.

    `base` is where nothing is turned, drawn hollow.
    """
    left, right, top, bottom = 42, 10, 20, 20
    wide, tall = PANEL_WIDTH - left - right, PANEL_HEIGHT - top - bottom

    def place(a: float, b: float) -> Point:
        return left + x.at(a) * wide, top + (1 - y.at(b)) * tall

    parts = [f'<text class="what" x="{left}" y="12">{escape(title)}</text>']
    for value in (y.low, (y.low + y.high) / 2, y.high):
        at = place(x.low, value)[1]
        parts.append(
            f'<line class="grid" x1="{left}" x2="{left + wide}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="tick end" x="{left - 5}" y="{at + 4:.1f}">{escape(y.says(value))}</text>'
        )
    for value, side in ((x.low, ""), (x.high, " end")):
        at = place(value, y.low)[0]
        parts.append(
            f'<text class="tick{side}" x="{at:.1f}" y="{PANEL_HEIGHT - 5}">{escape(x.says(value))}</text>'
        )
    drawn = [place(a, b) for a, b, _ in points]
    if len(drawn) > 1:
        parts.append(f'<path class="line s0" d="{_path(drawn, False)}"/>')
    parts += [f'<circle class="dot s0" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in drawn]
    if base is not None:
        a, b = place(*base)
        parts.append(f'<circle class="hollow" cx="{a:.1f}" cy="{b:.1f}" r="4.5"/>')
    ends = [(drawn[i], points[i][2]) for i in sorted({0, len(points) - 1})] if points else []
    if len(ends) == 2 and math.dist(ends[0][0], ends[1][0]) < 2 * LABEL_GAP:
        ends = [(ends[0][0], f"{ends[0][1]} → {ends[1][1]}")]  # two names would lie on each other
    for (a, b), name in ends:
        above = b - 7 if b > top + 14 else b + 15
        side = " end" if a > left + wide * 0.6 else ""
        parts.append(
            f'<text class="tick strong{side}" x="{a:.1f}" y="{above:.1f}">{escape(name)}</text>'
        )
    return _svg(title, about, PANEL_WIDTH, PANEL_HEIGHT, parts)


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    bad: bool  # abusive by the truth


@dataclass(frozen=True, slots=True)
class Tie:
    """A link of two nodes (by place); `nats` is its weight."""

    a: int
    b: int
    nats: float
    shade: int


def network(title: str, about: str, nodes: Sequence[Node], ties: Sequence[Tie]) -> Markup:
    """Nodes where their links pull them; the same input gives the same picture."""
    size = 460.0
    places = _spread(len(nodes), ties, size)
    heaviest = max((t.nats for t in ties), default=1.0) or 1.0
    parts = []
    for tie in sorted(ties, key=lambda t: t.nats):
        (xa, ya), (xb, yb) = places[tie.a], places[tie.b]
        width = 0.8 + 2.6 * tie.nats / heaviest
        parts.append(
            f'<line class="tie s{tie.shade % SHADES}" stroke-width="{width:.1f}" '
            f'x1="{xa:.1f}" y1="{ya:.1f}" x2="{xb:.1f}" y2="{yb:.1f}"/>'
        )
    for node, (x, y) in zip(nodes, places, strict=True):
        what = "abusive" if node.bad else "honest"
        parts.append(
            f'<circle class="node {what}" cx="{x:.1f}" cy="{y:.1f}" r="7">'
            f"<title>{escape(node.name)} ({what})</title></circle>"
        )
    return _svg(title, about, WIDTH, round(size), parts)


def _spread(n: int, ties: Sequence[Tie], tall: float, rounds: int = 220) -> list[Point]:
    """Fruchterman and Reingold (1991) from a circle: all push, the linked pull; cooled to rest."""
    if n == 0:
        return []
    x = [math.cos(2 * math.pi * i / n) for i in range(n)]
    y = [math.sin(2 * math.pi * i / n) for i in range(n)]
    far = 1.4 / math.sqrt(n)
    for r in range(rounds):
        dx, dy = [0.0] * n, [0.0] * n
        for a in range(n):
            for b in range(a):
                u, v = x[a] - x[b], y[a] - y[b]
                d = math.hypot(u, v) or 1e-6
                push = far * far / (d * d)
                dx[a] += u * push
                dy[a] += v * push
                dx[b] -= u * push
                dy[b] -= v * push
        for t in ties:
            u, v = x[t.a] - x[t.b], y[t.a] - y[t.b]
            pull = math.hypot(u, v) / far * 0.35
            dx[t.a] -= u * pull
            dy[t.a] -= v * pull
            dx[t.b] += u * pull
            dy[t.b] += v * pull
        heat = 0.12 * (1 - r / rounds)
        for i in range(n):
            d = math.hypot(dx[i], dy[i]) or 1e-9
            x[i] += dx[i] / d * min(d, heat) - 0.01 * x[i]
            y[i] += dy[i] / d * min(d, heat) - 0.01 * y[i]
    return list(zip(_fit(x, 20, WIDTH - 20), _fit(y, 20, tall - 20), strict=True))


def _fit(values: Sequence[float], low: float, high: float) -> list[float]:
    least, most = min(values), max(values)
    span = most - least or 1.0
    return [low + (v - least) / span * (high - low) for v in values]


def _svg(title: str, about: str, wide: int, tall: int, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" role="img">'
        f"<title>{escape(title)}</title><desc>{escape(about)}</desc>{''.join(parts)}</svg>"
    )
