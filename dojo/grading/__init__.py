"""Grading a class: many submissions, one verdict for each kata of each, unattended.

submissions   what was handed in: folders and zips, read without trusting them
results       what a grade is made of, and what it is worth
keys          the content that a verdict depends on, as a hash
ledger        verdicts kept by that hash, so that a run that was killed goes on where it was
leash         child processes that end when they must
plain         a kata's suite on a submission, in one child process
strict        the same submission asked by a grader that trusts nothing in its process
one           one submission, kata by kata
crowd         many submissions, over threads or dask
reports       CSV, JUnit XML and the class as one page
similarity    who has written the same thing
"""
