"""
The processes of the service and what they ask of the operating system.

`supervisor` starts and restarts the others; `listeners` binds sockets; `child` is a child's side of its life; `systemd`
and `scheduling` speak to the service manager and the kernel. This imports almost nothing, so that the supervisor stays
small.
"""
