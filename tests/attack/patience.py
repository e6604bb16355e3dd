"""How long an attack waits for what the server must do. The limit is for a hang alone: a busy machine may stand still
for seconds. Where the armour is switched off and nothing is going to come, run.py makes it short."""

LONG_S, SHORT_S = 90.0, 6.0
seconds = LONG_S
