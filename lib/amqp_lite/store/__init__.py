"""Where durable messages are kept. Knows no message format."""
