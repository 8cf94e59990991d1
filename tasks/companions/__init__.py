"""The files that travel with a snapshot: its card, whom to thank, licences, Croissant."""
