"""Errors that end a worker's part in the communication. A failed round that is not the last: ``RoundFailedError``."""

from __future__ import annotations

__all__ = ["CommunicatorError", "ExcludedError", "ReplicasDifferError", "StoreLostError", "WorkersLostError"]


class CommunicatorError(RuntimeError):
    """This worker cannot take part in any further round."""


class WorkersLostError(CommunicatorError):
    """Workers are missing, and this run does not go on without them, or could not within its time limit."""


class ExcludedError(CommunicatorError):
    """The others went on without this worker."""


class StoreLostError(CommunicatorError):
    """The store that workers agree through cannot be reached, or does not answer."""


class ReplicasDifferError(CommunicatorError):
    """Values that have to be the same bits on all workers are not."""
