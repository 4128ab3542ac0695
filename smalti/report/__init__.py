"""Report: reads a run folder, writes pictures and pages."""
