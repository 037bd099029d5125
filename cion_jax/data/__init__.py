"""From identity shards to views on the device."""
