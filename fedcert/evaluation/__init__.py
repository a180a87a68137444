"""What a simulation measures beyond the protocol, where it has its clients' examples."""
