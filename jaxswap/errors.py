"""The exceptions for what a user can mend."""


class InputError(Exception):
    """Bad input: one line that names the file, key or line, and the fix. The command line exits 2 on it."""


def reason(error: Exception) -> str:
    """Why a file could not be used: what the system says, in a few words."""
    return str(getattr(error, "strerror", None) or error)


class NotModelled(InputError):
    """Well-formed input that asks for something no machine here does."""
