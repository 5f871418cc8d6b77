"""Sluice's node agent: decides (core), programs the kernel (kernel), talks to Kubernetes and the proxies (agent)."""
