"""Errors that are meant to be read by the person who caused them."""


class UserError(Exception):
    """A request that cannot be carried out; the message is one line that names what was wrong and what is accepted.

    The command line prints the message after ``unireel: error:`` and exits with :attr:`exit_code`.
    """

    exit_code = 1


class UsageError(UserError):
    """A request that could never have worked as written: an option, a value or a combination that does not exist."""

    exit_code = 2
