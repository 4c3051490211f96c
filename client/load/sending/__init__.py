"""Questions to a server, on time, and whether its answers are right."""
