"""The pages that people look at: what a report says of a dataset and of a run, its charts and pictures."""
