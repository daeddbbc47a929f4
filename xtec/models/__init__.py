"""The networks: configuration, float network, exact prior, weights, registry.

Below: residual, coding, sentinel2, errors. Above: engine, codec.
"""
