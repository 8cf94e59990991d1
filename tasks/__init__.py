"""How one stage turns its input into its output: pure functions, and the task that calls them last."""
