"""What we know about an account at the instant of an event."""
