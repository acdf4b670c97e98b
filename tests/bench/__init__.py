"""`python -m tests.bench`: side by side with other servers, on this machine, now. Not collected by pytest."""
