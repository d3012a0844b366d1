"""How fast the queue is, each figure beside the limit that raw SQLite sets in the same run."""
