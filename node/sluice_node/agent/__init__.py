"""The agent's shell: the API server, the loop, the reports, the proxies' socket, metrics."""
