"""Limits of the processes of the benchmarks."""


def raise_open_files() -> None:
    """Allow as many open files as the system lets us: a thousand clients need more than the usual 1024."""
    try:
        import resource
    except ImportError:  # not a Unix
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # macOS refuses what it calls unlimited
        pass
