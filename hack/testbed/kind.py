"""The kind backend (placeholder until complete)."""
