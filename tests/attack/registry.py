"""The list of attacks. Each is a function of a target that raises Failed when the armour did not hold."""

ATTACKS = []


class Failed(Exception):
    pass


class Skip(Exception):
    pass


class Attack:
    def __init__(self, function, limits, extra, sabotage, sabotage_limits, alone):
        self.name = function.__name__
        self.function, self.limits, self.extra, self.alone = function, limits, extra, alone
        self.sabotage, self.sabotage_limits = sabotage, sabotage_limits


def attack(limits=None, extra=(), sabotage=(), sabotage_limits=None, alone=False):
    """limits: of the server under attack. How the attack is shown to be able to fail: sabotage, pieces of the armour to
    switch off in the sabotage build; or sabotage_limits, limits so wide that nothing is held. alone: not beside others,
    because it measures memory or needs the processors."""
    if not sabotage and sabotage_limits is None:
        raise ValueError("an attack that cannot fail shows nothing")

    def register(function):
        ATTACKS.append(Attack(function, limits or {}, extra, sabotage, sabotage_limits, alone))
        return function

    return register


def check(condition, message):
    if not condition:
        raise Failed(message)


def check_honest(target):
    check(target.is_alive(), "the server is dead")
    failure = target.honest()
    check(failure is None, failure)
