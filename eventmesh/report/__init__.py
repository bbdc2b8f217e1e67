"""What a run's record says: figures, conclusions with their doubt, sentences, plots, pages and tables."""
