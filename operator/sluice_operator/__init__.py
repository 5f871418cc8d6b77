"""Sluice's operator: gives policies their egress IPs and port slices, pools their gateways, and everything its status.

`core` decides (pure), `shell` talks to Kubernetes, `main` is the command line. The shell imports the core, never the
other way round.
"""
