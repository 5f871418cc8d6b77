"""A small authoritative name server for the domains that tests make up."""
