"""Many reports over named axes, devices and processes. Nothing lives here yet."""
