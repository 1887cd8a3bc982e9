"""The exceptions for what a user can mend."""


class InputError(Exception):
    """Bad input: one line that names the file, key or line, and the fix. The command line exits 2 on it."""


class NotModelled(InputError):
    """Well-formed input that asks for something no machine here does."""
