"""The mechanics: readiness, time, moving bytes, opening connections, asking name servers.

Knows nothing of HTTP or of policies. Plain epoll without asyncio: per-connection cost is what this program is about.
"""
