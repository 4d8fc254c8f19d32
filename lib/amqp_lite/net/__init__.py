"""Sockets: the only room that touches them."""
