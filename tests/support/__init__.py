"""What tests share: programs they start, places they run in, what they expect."""
