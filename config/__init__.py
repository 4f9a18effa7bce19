"""Settings and the standard's tables as data. Imports nothing of ours."""
