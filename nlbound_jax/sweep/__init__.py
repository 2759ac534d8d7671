"""Many reports over named axes, devices and processes. Empty so far."""
