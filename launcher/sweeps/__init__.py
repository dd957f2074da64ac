"""Many runs at once, by one command."""
