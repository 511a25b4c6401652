"""The one error that a command turns into one line on stderr and exit status 2."""


class BadInput(ValueError):
    """What the user gave cannot be used. The message is one line that names the file, line or option, and what is accepted."""
