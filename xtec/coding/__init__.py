"""Coding: integers to bytes and back, by tables of integers.

Floats stop above this room. Nothing here knows what the integers mean.

Below: errors. Above: models.prior (tables), codec (all).
"""
