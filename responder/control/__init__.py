"""
The control process: builds its parts, starts them in order, and stops them in reverse order.

`__main__` is its life from the first message of the supervisor to the last. `nameservers` serves the nameservers from
the first moment on; `database` waits for the database; `parts` starts everything else. Only this package knows all
parts of the process.
"""
