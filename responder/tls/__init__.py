"""TLS: `keypair` is a certificate with its key, `tlscontext` the settings of every TLS server here."""
