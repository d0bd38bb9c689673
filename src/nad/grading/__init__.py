"""Whether an answer is right: answers in texts, mathematical equality, and the sandbox for programs."""
