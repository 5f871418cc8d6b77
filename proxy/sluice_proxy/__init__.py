"""Sluice's gateway proxy: HTTP CONNECT and absolute-form requests, with the identity of the packet's mark."""
