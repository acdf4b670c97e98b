"""The service between the real programs around it: a parent zone, a CA's resolver, a CA, an ACME client."""
