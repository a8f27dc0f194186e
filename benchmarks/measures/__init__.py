"""The four measurements of ``benchmarks.throughput``, one module each."""
