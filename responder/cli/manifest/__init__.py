"""`responder manifest`: prints the objects that cert-manager needs for a certificate, for `kubectl apply`."""
