"""Plots as inline SVG: lines over time and strips of states. Colours are CSS classes of the page, so that they follow
light and dark; every line and strip also has words, so that nothing hangs on colour alone."""

import html
import math

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 960, 64, 12, 10, 24
PLOT_HEIGHT, STRIP_HEIGHT, STRIP_GAP = 170, 18, 6


def _text(x, y, words, name="tick", anchor="middle"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{name}" text-anchor="{anchor}">{html.escape(words)}</text>'


def compact(value):
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def ticks(top, count=4):
    """Round numbers from 0 to at least `top`."""
    if top <= 0:
        return [0, 1]
    raw = top / count
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * each for each in (1, 2, 2.5, 5, 10) if size * each >= raw)
    return [step * each for each in range(math.ceil(top / step - 1e-9) + 1)]


def log_ticks(bottom, top):
    first = math.floor(math.log10(bottom))
    last = max(math.ceil(math.log10(top)), first + 1)
    return [10.0 ** each for each in range(first, last + 1)]


class Axes:
    """Seconds to the right, values up. `end_s`: where the time axis ends."""

    def __init__(self, end_s, values, log=False, height=PLOT_HEIGHT):
        self.end_s, self.log, self.height = max(end_s, 1), log, height
        values = [value for value in values if value is not None and (value > 0 or not log)]
        top = max(values, default=1)
        self.marks = log_ticks(max(min(values, default=1), 1e-3), top) if log else ticks(top)
        self.low, self.high = self.marks[0], self.marks[-1]

    def x(self, t):
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(t / self.end_s, 0), 1)

    def y(self, value):
        if self.log:
            value = max(value, self.low)
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return TOP + self.height * (1 - min(max(share, 0), 1))

    def frame(self, fault):
        out = [_shade(self, fault, self.height)]
        for mark in self.marks:
            y = self.y(mark)
            out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
            out.append(_text(LEFT - 6, y + 4, compact(mark), anchor="end"))
        return out + _times(self, TOP + self.height)


def _shade(axes, fault, height):
    """`fault`: [from, to], or [from, when it began to heal, to]."""
    out = []
    for name, start, stop in zip(("fault", "healing"), fault, fault[1:]):
        begin, end = axes.x(start), axes.x(stop)
        width = max(end - begin, 1)
        out.append(f'<rect x="{begin:.1f}" y="{TOP}" width="{width:.1f}" height="{height}" class="{name}">'
                   f"<title>{name}: {start:.1f} s to {stop:.1f} s</title></rect>")
        if end - begin > 45:
            out.append(_text((begin + end) / 2, TOP + 12, name, "faultname"))
    return "".join(out)


def _times(axes, bottom):
    return [_text(axes.x(mark), bottom + 16, f"{mark:g} s") for mark in ticks(axes.end_s, 10) if mark <= axes.end_s]


def _runs(points, gap_s):
    """Pieces of a line between gaps, where nothing was measured."""
    piece = []
    for t, value in points:
        if value is None or (piece and t - piece[-1][0] > gap_s):
            if piece:
                yield piece
            piece = []
        if value is not None:
            piece.append((t, value))
    if piece:
        yield piece


def lines(named, end_s, fault, label, log=False, gap_s=2.5):
    """`named`: [(name, class, [(t, value or None)])]. A single point is a dot: it would be no line."""
    axes = Axes(end_s, [value for _name, _class, points in named for _t, value in points], log)
    out = axes.frame(fault)
    for name, css, points in named:
        for piece in _runs(points, gap_s):
            if len(piece) == 1:
                out.append(f'<circle cx="{axes.x(piece[0][0]):.1f}" cy="{axes.y(piece[0][1]):.1f}" r="2" class="dot '
                           f'{css}"/>')
            else:
                path = " ".join(f"{axes.x(t):.1f},{axes.y(value):.1f}" for t, value in piece)
                out.append(f'<polyline points="{path}" class="line {css}"/>')
        highest = max((value for _t, value in points if value is not None), default=None)
        if highest is not None:
            out.append(f"<desc>{html.escape(name)}: at most {compact(highest)}</desc>")
    return _svg(out, TOP + axes.height + BOTTOM, label)


def legend(named):
    """(name, class) as words beside a piece of the line."""
    return '<p class="legend">' + " ".join(
        f'<span><svg width="26" height="10" aria-hidden="true"><line x1="1" x2="25" y1="5" y2="5" class="line {css}"/>'
        f"</svg>{html.escape(name)}</span>" for name, css in named) + "</p>"


def strips(states, end_s, fault, label):
    """A row a node. `states`: [(name, [(from, to, state)])]."""
    height = len(states) * (STRIP_HEIGHT + STRIP_GAP)
    axes = Axes(end_s, [1], height=height)
    out = []
    for row, (name, stretches) in enumerate(states):
        y = TOP + row * (STRIP_HEIGHT + STRIP_GAP)
        out.append(_text(LEFT - 6, y + 13, name, anchor="end"))
        for begin, end, state in stretches:
            left, width = axes.x(begin), max(axes.x(end) - axes.x(begin), 1)
            out.append(f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{STRIP_HEIGHT}" class="state '
                       f'{_state_class(state)}"><title>{html.escape(name)}: {html.escape(state)}, {begin:.0f} s to '
                       f'{end:.0f} s</title></rect>')
            if width > 8 * len(state):
                out.append(_text(left + width / 2, y + 13, state, "statename"))
    if fault:
        for t in fault:
            out.append(f'<line x1="{axes.x(t):.1f}" x2="{axes.x(t):.1f}" y1="{TOP - 4}" y2="{TOP + height}" '
                       'class="faultedge"/>')
    return _svg(out + _times(axes, TOP + height), TOP + height + BOTTOM, label)


def _state_class(state):
    return {"ready": "ready", "no answer": "silent", "failed": "failed"}.get(state, "between")


def _svg(parts, height, label):
    return (f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(label)}">' + "".join(parts) +
            "</svg>")
