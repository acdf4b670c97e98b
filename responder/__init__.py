"""Authoritative DNS for ACME dns-01 challenges, with tokens that can do one thing."""
