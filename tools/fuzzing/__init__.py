"""Broken, strange and random specs, and what must hold for every one of them."""
