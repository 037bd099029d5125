"""What a finished run writes: shards, provenance, card, report."""
