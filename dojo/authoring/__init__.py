"""Who tests the tests: is a suite right, complete, and able to fail?

suites      run a kata's suite in a child process and read what each test did
outcomes    the pytest plugin in that child that writes it down
checks      reference green, blank stubs red, and everything that belongs to a kata is there
milestones  the same, of a milestone
lessons     what README.md and hints.md must contain
examples    what a lesson shows is what happens
budgets     a budget has a twin
strictly    strict checks hold for the reference, and not for a blank stub
mistakes    believable wrong solutions, each caught at the level it claims
changes     what may stand in place of a piece of code
mutants     every such change to a reference, under a name that lasts
warm        runs a suite against many mutants from one process
swapping    puts a mutant in place there
forking     the children of that process
mutation    reads the result against the list of mutants that nobody could tell apart
branches    what of the reference its suite does not reach
load        false alarms and missed twins, on an idle and on a busy machine
gallery     what a student sees of three mistakes in each kata
"""
