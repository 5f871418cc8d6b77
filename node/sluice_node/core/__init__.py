"""Decisions of the node agent: from what is known to what the kernel must hold. No I/O, no clock, no globals."""
