"""The theory of regret-minimization fine-tuning of a single layer, and checks of it on the code that trains.

`README.md` has the statements with their proofs. There is one module per statement, with its closed forms, its
experiment and its figure; `python -m theory.check` runs them all.
"""
