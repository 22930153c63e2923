"""Flax transformer, losses, sizes and decoding: pure functions of arrays."""
