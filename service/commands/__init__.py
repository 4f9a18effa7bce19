"""The commands of the CLI, by subject. Nothing heavy is imported before a command runs."""
