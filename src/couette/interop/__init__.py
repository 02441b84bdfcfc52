"""Models of other libraries, and ours for them: the only place that knows what those look like."""
