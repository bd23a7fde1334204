"""What a learner refuses, and when.

- At construction, `_construction.py`: arguments, the model, and an estimator that does not fit
  them. `_options.py` and `_siblings.py` say what to write for an unknown argument.
- At every call with new shapes or in a new state, `_call.py`: what shapes, dtypes and devices show.
  Of a call like an earlier one only the keys are checked.
- At a new kind of call, `_kind.py`: what takes passes through the model. These are the first task's
  losses (`_first_losses.py`, `_criteria.py`, `_labels.py`), its meta-gradient
  (`_first_gradient.py`, `_rules.py`), and whether the model computes with the parameters that it is
  given (`_model.py`, `_purity.py`, `_one_step.py`).
"""
