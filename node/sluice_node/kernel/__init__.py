"""What the agent tells the kernel: nftables, rtnetlink, connection tracking, packet sockets, settings."""
