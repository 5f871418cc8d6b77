"""What the proxy decides: parsing, policy, answers, DNS messages.

Pure: no I/O, no clock, no process state. Nothing in here may import socket, select, os or time.
"""
