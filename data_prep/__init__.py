"""From tracked people to identity shards."""
