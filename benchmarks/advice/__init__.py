"""Is the advice of `aria_sampling.History.advice` right? Runs in worlds whose answer is known."""
