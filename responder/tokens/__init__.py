"""
What tokens are and what they may do. Pure: no I/O.

`token` has tokens and grants; `secret`, `hostname` and `network` the parts of a token; `values` the rules for challenge
values; `credentials` and `manifests` a token and its secret in the forms that clients and Kubernetes read.
"""
