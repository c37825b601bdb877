"""Errors a user can mend. The command line turns every `UserError` into one message and exit code 2."""


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
