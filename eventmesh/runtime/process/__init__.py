"""The processes of a mesh: threads, files and sockets around the parts that decide. Knows nothing of Ray."""
