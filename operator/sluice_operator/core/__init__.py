"""Decisions of the operator: pure functions over a snapshot, no I/O, no clock, no globals."""
