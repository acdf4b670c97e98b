"""
The solver for cert-manager's `dns01.webhook`: an aggregated API server, which kube-apiserver calls for cert-manager.

It stands between a cluster and the API of a responder, and shares nothing with the service but the contract of that
API: no configuration file, no database. It keeps nothing, so any number of replicas run side by side.

`server` has the routes, `callers` says who may use them, `discovery` what kube-apiserver is told; `payload` and
`issuer` read what cert-manager sends, `solver` does it through its clients `cluster` and `service`; `handshake` is TLS.
"""

from responder.webhook.main import Options

__all__ = ["Options"]
