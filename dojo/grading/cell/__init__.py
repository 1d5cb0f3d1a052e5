"""What runs on the other side, beside a student's code: scripts that import nothing of dojo."""
