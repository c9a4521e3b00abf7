"""Rules: conditions compiled to closures, and the book that knows which of them may concern a request."""
