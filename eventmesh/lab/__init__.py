"""What people do with a mesh: run it, keep one standing, look into one, back one up, break one."""
