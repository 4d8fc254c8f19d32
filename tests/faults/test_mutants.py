"""Planted bugs that the random programs have to notice: a part of the table of mutants.py."""

import os
from multiprocessing import Pool

import pytest

import mutants

SECONDS = 60  # in all


def test_mutants_are_noticed():
    chosen = [mutant for mutant in mutants.MUTANTS if mutant[0] not in mutants.REDUNDANT]
    seconds = SECONDS * (os.cpu_count() or 1) / len(chosen)
    with Pool(os.cpu_count()) as pool:
        answers = pool.map(mutants._job, [(mutant, 6 * seconds, 1) for mutant in chosen], 1)
    missed = [answer[0] for answer in answers if answer[1] is None]
    assert not missed, missed


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=[mutant[0] for mutant in mutants.MUTANTS])
def test_mutants_are_patches_of_what_is_there(mutant):
    mutants.load(*mutant)
