"""Pass criteria: a figure's name with _max or _min, or the name alone for equality.

    "criteria": {"availability_min": 0.9995, "rto_s_max": 15, "acked_min": 1000, "quarantined": 0}

A figure that was not measured misses its criterion: what is not seen is not claimed.
"""

# Whatever a drill is about. A drill may name one of them itself, to set another bound on purpose.
ALWAYS = {"lost": 0, "doubled": 0, "phantom": 0, "reordered": 0, "corrupt": 0, "unseen": 0, "acked_min": 1}


def _met(name, wanted, measured):
    if name.endswith("_max"):
        return measured <= wanted
    if name.endswith("_min"):
        return measured >= wanted
    return measured == wanted


def figure_of(name):
    return name[:-4] if name.endswith(("_max", "_min")) else name


def check(criteria, figures, judged=True):
    """[{name, wanted, measured, met}]; `judged`: there was a load, so ALWAYS holds as well."""
    rows = []
    for name, wanted in {**(ALWAYS if judged else {}), **criteria}.items():
        measured = figures.get(figure_of(name))
        known = isinstance(measured, type(wanted)) or isinstance(measured, (int, float))
        rows.append({"name": name, "wanted": wanted, "measured": measured,
                     "met": bool(known and _met(name, wanted, measured))})
    return rows


def reason(row):
    measured = "was not measured" if row["measured"] is None else f"is {short(row['measured'])}"
    word = {"_max": "at most ", "_min": "at least "}.get(row["name"][-4:], "")
    return f"{figure_of(row['name'])} {measured}, wanted {word}{short(row['wanted'])}"


def short(value):
    return f"{value:.6g}" if isinstance(value, float) else str(value)
