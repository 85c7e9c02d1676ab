"""Speaking to other mail servers: connections, the pools that keep them, and the way to one that answers."""
