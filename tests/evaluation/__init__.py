"""What the towers retrieve, against naive loops over users and ranks."""
