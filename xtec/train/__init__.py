"""Training of the embedded family. Imported by the command line and the benchmarks alone."""
