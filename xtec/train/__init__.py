"""Training: data, loss, loop. Imported by the command line alone."""
