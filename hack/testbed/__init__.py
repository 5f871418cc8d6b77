"""Clusters, outside hosts and images for trying Sluice out: a development tool, never part of what is installed."""
