"""
Files: `atomicfile` writes them, `directory` makes directories for them, `namedfile` reads files that a user names, and
`keyfile` keeps the key that TSIG keys are made from.
"""
