"""
The HTTP API for ACME clients, and the admin listener for orchestrators.

A handler authenticates, reads the request, and calls `challenges`. `authentication` finds the token of a request,
`clients` its address; `bodies` reads request bodies, `problems` turns errors into problem documents, `acmedns` is the
API of acme-dns, `health` is the admin listener. Nothing in this package decides what a token may do.
"""

from responder.api.application import build_api, build_runner
from responder.api.authentication import Authenticator
from responder.api.health import Away, Health, Probed, build_admin
from responder.connections import Runner

__all__ = ["Authenticator", "Away", "Health", "Probed", "Runner", "build_admin", "build_api", "build_runner"]
