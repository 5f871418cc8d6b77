"""What talks to Kubernetes on behalf of the core: stores, requests, the lease, the loop."""
