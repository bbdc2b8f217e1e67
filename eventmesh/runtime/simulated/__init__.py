"""A whole mesh in one thread on a virtual clock."""
