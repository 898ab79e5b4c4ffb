"""trustmine: vulnerability-focused training data from git histories of C and C++."""

__version__ = "0.1.0"
