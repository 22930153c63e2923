"""Errors that a person can act on."""


class UsageError(Exception):
    """A person's mistake: one line naming the option, the value and what is allowed.

    The command line prints it and exits with status 2; nothing else is shown.
    """


class Interrupted(Exception):
    """Work stopped on request after saving; the command line exits with status 75, "resume me"."""


class Diverged(Exception):
    """No member has a finite score any more; the command line exits with status 3."""


class Lost(Exception):
    """Another process of the run is missing or failed; the command line exits with status 1."""
