"""Every inequality of the proof as measured, bound and slack along a run. Empty so far."""
