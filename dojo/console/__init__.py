"""What commands share of terminal and system: output, keys, child processes, saved files."""
