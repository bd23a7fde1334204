"""What a learner refuses, behind three doors.

- At construction, `_construction.py`: arguments, the model, and whether an estimator fits them;
  `_options.py` says what to write for an argument that does not exist.
- At every call of other shapes or another state, `_call.py`: what shapes, dtypes and devices show.
  Of a call like an earlier one only its keys are looked at.
- At a new kind of call, `_kind.py`: what takes passes through the model. The first task's losses
  (`_first_losses.py`, `_criteria.py`, `_labels.py`), its meta-gradient (`_first_gradient.py`,
  `_rules.py`), and whether the model is a function of the parameters that it is given (`_model.py`,
  `_purity.py`, `_one_step.py`).
"""
