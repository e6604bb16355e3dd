"""A verdict as one self-contained HTML page, and the index over all of them. Nothing is fetched, no script is run.

`python3 -m chaos.report.page NAME.json` prints the page of a verdict that was written before."""

import html
import json
import sys

from chaos.report import plots

STYLE = """
:root { color-scheme: light dark; --line: #8884; --muted: #666; --card: #8881; --good: #18794e; --bad: #b3261e;
  --skip: #6b6b6b; --a: #0b62a4; --b: #c75100; --c: #7a4bb5;
  --fault: #d9a40040; --healing: #d9a4001a; --edge: #a67c00;
  --ready: #bfe3d0; --between: #f3dfa5; --silent: #b9bcc4; --failed: #f0b4ad; --ink: #1b1b1b; }
@media (prefers-color-scheme: dark) { :root { --muted: #a0a0a0; --good: #3fb27f; --bad: #ff7b6e; --skip: #9a9a9a;
  --a: #6cb6ff; --b: #ff9d52; --c: #c8a2ff; --fault: #ffcf4030; --healing: #ffcf4014; --edge: #d9b44a;
  --ready: #1d5a3d; --between: #6b5517;
  --silent: #4d515c; --failed: #7c2b24; --ink: #eee; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1140px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 15px; margin: 28px 0 6px; }
.muted { color: var(--muted); } a { color: inherit; } code { font-size: 13px; }
.badge { font-weight: 600; padding: 1px 10px; border-radius: 999px; color: #fff; background: var(--skip); }
.badge.PASS { background: #18794e; } .badge.FAIL { background: #b3261e; }
.reasons { border-left: 4px solid var(--bad); padding-left: 12px; } .reasons.SKIP { border-color: var(--skip); }
.note { border-left: 4px solid var(--edge); padding-left: 12px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); gap: 10px; margin-top: 16px; }
.card { background: var(--card); border-radius: 8px; padding: 8px 12px; }
.card b { display: block; font-size: 18px; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; } .scroll { overflow-x: auto; }
th, td { text-align: right; padding: 4px 10px; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 500; color: var(--muted); } .left { text-align: left; }
td { white-space: nowrap; } td.left { white-space: normal; } td.left:nth-child(2) { min-width: 15em; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
svg { display: block; width: 100%; height: auto; } .legend { margin: 2px 0 4px; } .legend span { margin-right: 18px; }
.legend svg { display: inline-block; width: 26px; margin-right: 6px; vertical-align: middle; }
.tick { font-size: 11px; fill: var(--muted); } .grid { stroke: var(--line); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line.a { stroke: var(--a); } .line.b { stroke: var(--b); stroke-dasharray: 7 3; }
.line.c { stroke: var(--c); stroke-dasharray: 2 3; } .dot.a { fill: var(--a); } .dot.b { fill: var(--b); }
.dot.c { fill: var(--c); }
.fault { fill: var(--fault); } .healing { fill: var(--healing); } .faultname { font-size: 11px; fill: var(--edge); }
.faultedge { stroke: var(--edge); stroke-dasharray: 4 3; } .statename { font-size: 11px; fill: var(--ink); }
.state.ready { fill: var(--ready); } .state.between { fill: var(--between); } .state.silent { fill: var(--silent); }
.state.failed { fill: var(--failed); }
"""
_CLASSES = "abc"


def escape(value):
    return html.escape(str(value))


def _page(title, body):
    return (f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
            f"<style>{STYLE}</style>\n{body}\n</html>\n")


def number(value, unit=""):
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}{unit}"
    return f"{value:,}{unit}" if isinstance(value, int) else f"{value}{unit}"


def percent(value):
    return "–" if value is None else f"{int(value * 1e5 + 1e-6) / 1e3:.3f} %"


def table(heads, rows, left=()):
    """Cells are HTML already."""
    def row(cells, tag):
        return "<tr>" + "".join(f"<{tag}{' class=left' if index in left else ''}>{cell}</{tag}>"
                                for index, cell in enumerate(cells)) + "</tr>"
    return ('<div class="scroll"><table>' + row(heads, "th") + "".join(row(cells, "td") for cells in rows) +
            "</table></div>")


def _cards(verdict):
    figures = verdict["figures"].get
    rate = verdict["load"].get("rate")
    cards = [("acknowledged", number(figures("acked"))), ("lost", number(figures("lost"))),
             ("doubled", number(figures("doubled"))), ("reordered", number(figures("reordered"))),
             ("availability", percent(figures("availability"))), ("p99", number(figures("p99_ms"), " ms")),
             ("RTO", number(figures("rto_s"), " s")), ("drained after", number(figures("drain_s"), " s")),
             ("asked rate", number(rate, " /s"))]
    return '<div class="cards">' + "".join(f'<div class="card">{name}<b>{value}</b></div>'
                                           for name, value in cards) + "</div>"


def _head(verdict):
    mark = verdict["verdict"]
    out = [f'<h1>{escape(verdict["title"] or verdict["name"])}</h1>',
           f'<p><span class="badge {mark}">{mark}</span> <b>{escape(verdict["name"])}</b> <span class="muted">'
           f'{escape(verdict["started"])} · {verdict["duration_s"]:.0f} s · '
           f'{escape(verdict["machine"].get("cpus", "?"))} CPUs, kernel {escape(verdict["machine"].get("kernel", "?"))}'
           f' · <a href="index.html">all drills</a> · <a href="{escape(verdict["name"])}.json">JSON</a></span></p>',
           f'<p>{escape(verdict["description"])}</p>']
    if verdict["reasons"]:
        out.append(f'<div class="reasons {mark}">' + "".join(f"<p>{escape(each)}</p>" for each in verdict["reasons"]) +
                   "</div>")
    remarks = [verdict.get("note"), *verdict.get("earlier", ())]
    out += [f'<p class="note">Note: {escape(remark)}.</p>' for remark in remarks if remark]
    out.append(f'<p><code>{escape(verdict["line"])}</code></p>')
    if verdict["runbook"]:
        out.append(f'<p class="muted">What an operator does: <code>{escape(verdict["runbook"])}</code></p>')
    return out


def _by_node(series, key):
    """Three lines can be told apart; of more nodes the rest repeat the pattern of the first."""
    return [(node, _CLASSES[index % 3], [tuple(point) for point in points])
            for index, (node, points) in enumerate(sorted(series.get(key, {}).items()))]


def _plot(title, named, end_s, fault, log=False):
    named = [each for each in named if each[2]]
    if not named:
        return []
    return [f"<h2>{escape(title)}</h2>", plots.legend([(name, css) for name, css, _points in named]),
            plots.lines(named, end_s, fault, title, log)]


def _plots(verdict):
    series, fault, end_s = verdict["series"], _fault(verdict), _end_s(verdict)
    if not series:
        return []
    rows = series.get("seconds", [])

    def column(name):
        return [(row["t"], row.get(name)) for row in rows if row.get(name) is not None]

    of = series.get("seconds_of", "the gateways")
    out = _plot(f"{'Requests' if of == 'the load client' else 'Events'} a second, as {of} saw it",
                [("acknowledged", "a", column("ok")), ("acknowledged when sent again", "c", column("retried")),
                 ("failed or not answered", "b", column("failed"))], end_s, fault)
    out += _plot("Time to the answer in ms, logarithmic", [("p99", "b", column("p99_ms")),
                                                           ("p50", "a", column("p50_ms"))], end_s, fault, log=True)
    out += _plot("Pending: acknowledged events that Kafka has not yet", _by_node(series, "pending"), end_s, fault)
    out += _plot("Lag: events that the slower peer has not on its disk, nor Kafka", _by_node(series, "lag"), end_s,
                 fault)
    out += _plot("Freshness: seconds from an event to its curated row",
                 [("seconds", "a", [tuple(point) for point in series.get("freshness", [])])], end_s, fault)
    # In per cent, so that the plot's own marks read right.
    shares = ("busy", "a", 1), ("given to others", "b", 2), ("disk stood still", "c", 4)
    out += _plot("This machine: per cent of its processors that were busy, and that its host gave to others; "
                 "per cent of the time in which its disk stood still",
                 [(words, css, [(row[0], 100 * row[column]) for row in series.get("machine", [])])
                  for words, css, column in shares], end_s, fault)
    states = [(node, series["states"][node]) for node in sorted(series.get("states", {}),
                                                                key=lambda each: (series["zones"][each], each))]
    if states:
        out += ["<h2>State of each node</h2>", plots.strips(states, end_s, fault, "state of each node over time")]
    return out


def _fault(verdict):
    """The fault's window, parted where the last heal began."""
    heals = [step["start_s"] for step in verdict["steps"]
             if step["part"] == "method" and step["name"].lower().startswith("heal")]
    begin_end = verdict["fault_s"]
    return [begin_end[0], heals[-1], begin_end[1]] if heals and begin_end else begin_end


def _end_s(verdict):
    ends = [row["t"] for row in verdict["series"].get("seconds", [])] + [step["end_s"] for step in verdict["steps"]]
    ends += [stretch[1] for stretches in verdict["series"].get("states", {}).values() for stretch in stretches]
    return max(ends, default=1)


def _mark(met, words):
    return f'<span class="{"good" if met else "bad"}">{words[0] if met else words[1]}</span>'


def render(verdict):
    """The page of one verdict (Verdict.json())."""
    body = [*_head(verdict), _cards(verdict), *_plots(verdict)]
    if verdict["criteria"]:
        body += ["<h2>Criteria</h2>", table(["criterion", "wanted", "measured", ""], [
            [escape(each["name"]), number(each["wanted"]), number(each["measured"]),
             _mark(each["met"], ("met", "missed")) if each.get("judged", True) else
             '<span class="muted">not judged</span>'] for each in verdict["criteria"]], {0})]
    if verdict["steps"]:
        body += ["<h2>Steps, and what proves them</h2>", table(["from", "to", "part", "step", "", "seen"], [
            [f'{each["start_s"]:.1f} s', f'{each["end_s"]:.1f} s', escape(each["part"]), escape(each["name"]),
             _mark(each["status"] == "succeeded", ("done", "failed")), escape(each["said"])]
            for each in verdict["steps"]], {2, 3, 4, 5})]
    rest = {name: value for name, value in sorted(verdict["figures"].items()) if isinstance(value, (int, float, str))}
    if rest:
        body += ["<h2>All figures</h2>", table(["figure", "value"], [[escape(name), escape(number(value))]
                                                                     for name, value in rest.items()], {0})]
    return _page(f'{verdict["verdict"]} {verdict["name"]}', "\n".join(body))


def render_index(verdicts):
    """A row a drill: those that failed first, then by name."""
    order = {"FAIL": 0, "PASS": 1, "SKIP": 2}
    rows = []
    for each in sorted(verdicts, key=lambda each: (order.get(each["verdict"], 0), each["name"])):
        figures = each["figures"].get
        below = each["reasons"][0] if each["reasons"] else each["title"]
        rows.append([f'<span class="badge {each["verdict"]}">{each["verdict"]}</span>',
                     f'<a href="{escape(each["name"])}.html">{escape(each["name"])}</a>'
                     f'<br><span class="muted">{escape(below)}</span>',
                     number(figures("acked")), number(figures("lost")), number(figures("doubled")),
                     number(figures("reordered")), percent(figures("availability")), number(figures("p99_ms"), " ms"),
                     number(figures("rto_s"), " s"), escape(each["started"][:16].replace("T", " "))])
    counts = ", ".join(f"{sum(each['verdict'] == name for each in verdicts)} {word}"
                       for name, word in (("PASS", "passed"), ("FAIL", "failed"), ("SKIP", "skipped")))
    return _page("Drills", f"<h1>Drills</h1><p>{counts}</p>" + table(
        ["", "drill", "acknowledged", "lost", "doubled", "reordered", "availability", "p99", "RTO", "run at (UTC)"],
        rows, {0, 1}))


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        sys.stdout.write(render(json.load(file)))
