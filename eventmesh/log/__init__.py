"""The backbone: a partitioned, single-writer log of Arrow batches. Knows nothing of Ray."""
