"""What runs a mesh: the parts both runtimes share, the simulated one, and the one on Ray."""
