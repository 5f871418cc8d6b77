"""Sluice's container images, built wherever a Docker engine works or Debian's buildah is installed."""

from testbed.images.build import build, clean, pending

__all__ = ["build", "clean", "pending"]
