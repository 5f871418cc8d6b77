"""What the programs share: names, the four kinds and their reasons, the arithmetic of addresses and ports.

Must not import any of the programs.
"""
