"""Bytes between processes: frames, and the streams that carry them. Knows neither Ray nor meshes."""
