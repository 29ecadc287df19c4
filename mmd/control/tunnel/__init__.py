"""Expose a model to the internet through a Cloudflare tunnel."""
