"""
A Kubernetes cluster as the webhook meets it, on loopback sockets with real TLS: the API that it asks (`api`, with the
rules of `rbac`), kube-apiserver's front proxy and cert-manager that call it (`front_proxy`, `cert_manager`), the
lookups that cert-manager makes itself (`lookups`), and the whole put together (`cluster`).
"""
