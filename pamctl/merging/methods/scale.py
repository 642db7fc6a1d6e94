"""The parameter that scales a result as a whole."""

from pamctl.merging.methods.method import Parameter

LAMBDA = Parameter("lambda", "scale of the result", 1.0)
