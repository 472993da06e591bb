"""Talking to a completion app: the same calls over requests (sync) and aiohttp (async)."""
