"""The benchmarks: a module per question."""
