"""Kubernetes on one Linux machine without Docker: unmodified components, each node a set of Linux namespaces."""
