"""What every program of ours has: signals, a control socket, a pid file, files it watches."""

__all__: list[str] = []
