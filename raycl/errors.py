"""The errors that a person can act on, each with the exit code that a script can act on."""


class RayclError(Exception):
    """A failure with one clear line for the user; ``exit_code`` is what the command line ends with."""

    exit_code = 1


class ConfigError(RayclError):
    """The config cannot be used; the message names field, value and remedy."""

    exit_code = 2


class InputError(RayclError):
    """What the config points at cannot be used: a missing column, an unreadable file, an empty log."""

    exit_code = 2


class GateRefused(RayclError):
    """A finished release is not good enough to serve; the message carries the gate's reasons."""

    exit_code = 3


class CorruptRelease(RayclError):
    """A stored version is incomplete, altered, or binds parts that were not made together."""


class StoreUnavailable(RayclError, OSError):
    """A store did not answer as it should for longer than raycl waits; finished work is kept for the next run."""
