"""What the server answers to each request, by what it is about."""
