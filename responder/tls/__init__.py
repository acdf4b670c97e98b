"""TLS: `keypair` is a certificate with its key, `tlscontext` is for servers, `distrust` explains failures to
clients."""
