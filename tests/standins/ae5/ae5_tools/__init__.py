"""A stand-in for the package `ae5_tools` 0.7.3, as far as deployments of ours need it.

It is installed under its real name into an environment of its own (`program.py`), and therefore
imports nothing of ours and only what the real one has: `requests`, `click`.
"""

from .api import AEAdminSession, AEUserSession
from .errors import AEException, AEUnexpectedResponseError

__version__ = "0.7.3"
__all__ = ["AEAdminSession", "AEException", "AEUnexpectedResponseError", "AEUserSession"]
