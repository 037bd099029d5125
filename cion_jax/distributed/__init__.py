"""Many devices and processes as one run: meshes, sharding, start and end together."""
