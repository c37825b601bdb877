"""InfoSAM: parameter-efficient adaptation of Segment Anything to a domain.

This package is the method: data, model, losses, training, evaluation, bundles and prediction. The search over its
settings lives in `tune`, clusters in `cluster`; neither is imported from here.
"""

__version__ = "0.1.0"
