"""
Files: `atomicfile` writes them, `directory` makes room for them, `namedfile` reads those that people name, `keyfile`
keeps the key of DNS updates.
"""
