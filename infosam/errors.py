"""Errors a user can mend. The command line turns every `UserError` into one message and exit code 2."""

import re

_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str, keep: str = "") -> str:
    """Text with control characters spelt out, but for those to `keep`, and so are marks that turn the direction of
    writing: names of files come from strangers, and a terminal would obey them."""
    return _HIDDEN.sub(lambda one: one[0] if one[0] in keep else one[0].encode("unicode_escape").decode(), text)


class UserError(ValueError):
    """Bad input: says what is wrong, where (file, row, field, value) and what to do about it."""


class ConfigError(UserError):
    """A setting is unknown, out of bounds, or contradicts another one."""


class DataError(UserError):
    """A data set cannot be read as image-mask pairs."""


class WeightsError(UserError):
    """A checkpoint is missing, truncated, or not the file its name promises."""


class FetchError(UserError):
    """A file cannot be fetched, is not the one that was asked for, or nobody agreed to its licence."""


class BundleError(UserError):
    """An adapter bundle is incomplete or damaged."""


class BundleMismatch(BundleError):
    """An adapter bundle was trained on other base weights than the ones it is put on."""


class UnknownDomain(UserError):
    """No champion is known for a domain."""


class Diverged(RuntimeError):
    """Training produced a value that is not finite; the run failed, the input was not at fault."""
