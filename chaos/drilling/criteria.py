"""Pass criteria: a figure's name with _max or _min, or the name alone for equality.

    "criteria": {"availability_min": 0.9995, "rto_s_max": 15, "acked_min": 1000, "quarantined": 0}

A figure that was not measured misses its criterion: what is not seen is not claimed.
"""

# Whatever a drill is about. A drill may name one of them itself, to set another bound on purpose.
ALWAYS = {"lost": 0, "doubled": 0, "phantom": 0, "reordered": 0, "corrupt": 0, "unseen": 0, "acked_min": 1}
# What no slow machine excuses: damage, and clients that sent again for as long as they do, and were refused. Damage in
# the warehouse is no row here: the judge itself says it.
INEXCUSABLE = {"conservation_error", "availability_min", *ALWAYS} - {"acked_min"}


def _met(name, wanted, measured):
    if name.endswith("_max"):
        return measured <= wanted
    if name.endswith("_min"):
        return measured >= wanted
    return measured == wanted


def figure_of(name):
    return name[:-4] if name.endswith(("_max", "_min")) else name


def tells_of_speed(name):
    """It depends on what else the machine does: times, and first attempts that met a fault nobody had seen."""
    return (figure_of(name).endswith(("_s", "_ms")) or
            figure_of(name) in ("p99_ratio", "p99_grown", "availability_before_retries"))


def check(criteria, figures, loaded=True, speed=True):
    """[{name, wanted, measured, met, judged}]; `loaded`: there was a load, so ALWAYS holds as well. Without `speed`
    what tells of it is shown and not judged."""
    rows = []
    for name, wanted in {**(ALWAYS if loaded else {}), **criteria}.items():
        measured = figures.get(figure_of(name))
        known = isinstance(measured, type(wanted)) or isinstance(measured, (int, float))
        rows.append({"name": name, "wanted": wanted, "measured": measured,
                     "met": bool(known and _met(name, wanted, measured)),
                     "judged": speed or not tells_of_speed(name)})
    return rows


def reason(row):
    measured = "was not measured" if row["measured"] is None else f"is {short(row['measured'])}"
    word = {"_max": "at most ", "_min": "at least "}.get(row["name"][-4:], "")
    return f"{figure_of(row['name'])} {measured}, wanted {word}{short(row['wanted'])}"


def short(value):
    return f"{value:.6g}" if isinstance(value, float) else str(value)
