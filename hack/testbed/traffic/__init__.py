"""What test pods run: probes, transfers, and connections that are held to see whether they live on.

Standard library only: the image has nothing else.
"""
