"""A mesh on Ray actors: Ray places, starts and stops them; everything they say travels over Arrow Flight."""
