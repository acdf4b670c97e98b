"""
The solver for cert-manager's `dns01.webhook`: an aggregated API server that kube-apiserver calls for cert-manager.

The webhook runs in a cluster and calls the API of a responder. It shares only that API with the service: it has no
configuration file and no database. It stores nothing, so any number of replicas can run at the same time.

`server` has the routes, `callers` decides who may use them, and `discovery` describes them to kube-apiserver. `payload`
and `issuer` read what cert-manager sends, and `solver` does it with the clients `cluster` and `service`. `handshake` is
the TLS of the server.
"""

from responder.webhook.main import Options

__all__ = ["Options"]
