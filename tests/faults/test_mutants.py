"""Planted bugs, the table of mutants.py: the directed tests or the random programs notice each."""

from multiprocessing import Pool

import mutants

SECONDS = 60  # of random programs, at most, for those that no directed test notices


def test_each_mutant_is_noticed():
    chosen = [mutant for mutant in mutants.MUTANTS if mutant[0] not in mutants.REDUNDANT]
    with Pool() as pool:
        answers = pool.map(mutants.job, [(mutant, SECONDS, 1, True) for mutant in chosen], 1)
    missed = [answer[0] for answer in answers if not answer[1] and answer[2] is None]
    assert not missed, missed


def test_redundant_mutants_have_a_reason_and_are_still_patches():
    names = {mutant[0]: mutant for mutant in mutants.MUTANTS}
    for name, reason in mutants.REDUNDANT.items():
        assert reason
        mutants.load(*names[name])


def test_the_directed_tests_pass_without_a_mutant():
    assert mutants.directed(mutants.Store()) == 0
