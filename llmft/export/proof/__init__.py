"""What verify asks the runtimes, each in a process of its own."""
