"""Files: `atomicfile` writes them, `namedfile` reads those that people name, `keyfile` keeps the key of DNS updates."""
