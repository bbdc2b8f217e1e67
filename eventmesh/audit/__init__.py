"""Was the run right? Checks of what a mesh left behind, each with what it looked at and what it found."""
