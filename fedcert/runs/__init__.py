"""What a run says of itself while it goes on: progress, events, status, and failures."""
