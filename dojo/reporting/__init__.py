"""One student's course as one page: where they stand, what they measured, what they trained."""
