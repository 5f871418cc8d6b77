"""What runs on the hosts outside the test cluster: services to talk to, and a record of every packet that arrived."""
