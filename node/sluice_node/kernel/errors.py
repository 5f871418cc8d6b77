"""What goes wrong between Sluice and the kernel, said for people."""


class KernelError(Exception):
    """The kernel did not take what it was told; the message says what, and what the kernel answered."""
