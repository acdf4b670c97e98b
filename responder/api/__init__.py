"""
The HTTP edge: what ACME clients call, and, on its own listener, what orchestrators ask.

It authenticates, reads the request, and asks `challenges`. `authentication` says who may ask, `clients` where from;
`bodies` reads what clients send, `problems` turns errors into problem documents, `acmedns` speaks as acme-dns does,
`health` is the admin listener; nothing here decides what a token may do.
"""

from responder.api.application import build_api, build_runner
from responder.api.authentication import Authenticator
from responder.api.health import Away, Health, Places, build_admin
from responder.connections import Runner

__all__ = ["Authenticator", "Away", "Health", "Places", "Runner", "build_admin", "build_api", "build_runner"]
