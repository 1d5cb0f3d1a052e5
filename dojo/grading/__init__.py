"""Grading a class: many submissions, one verdict for each kata of each, unattended.

submissions   what was handed in: folders and zips, read without trusting them
results       what a grade is made of, and what it is worth
keys          the content that a verdict depends on, as a hash
ledger        verdicts kept by that hash, so that a run that was killed goes on where it was
leash         child processes that end when they must
plain         a kata's suite on a submission, in one child process
strict        the same submission asked by a grader that trusts nothing in its process:
questions     what it asks, and whether an answer is right
sandbox       the cell that the student's code runs in; cell/ has what runs there beside it
worker        the grader's side of a process in it
frames        how the two talk
one           one submission, kata by kata
crowd         many submissions, over threads or dask
reports       CSV, JUnit XML and the class as one page
similarity    who has written the same thing
gradescope    the package for Gradescope, and what runs there
beside        one submission beside the reference: its tests and costs,
blame         which of its modules is at fault,
covered       and what of it is run
tether        a child of a grader dies with it
text          words of a student's code, fit for a table
"""
