"""
Certificates by ACME (RFC 8555): the only place that speaks to CAs, with the libraries `acme` and `josepy`.

`accountkey` reads and makes account keys.
"""
