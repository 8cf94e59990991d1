"""What belongs together, which side it is on, and how even the shares are."""
