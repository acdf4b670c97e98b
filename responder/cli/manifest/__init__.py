"""`responder manifest`: what cert-manager needs to get a certificate for a hostname, ready for `kubectl apply`."""
