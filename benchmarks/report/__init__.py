"""Pages and plots from result files."""
