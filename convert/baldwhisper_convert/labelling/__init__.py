"""Labels thousands of hours of speech with a model, in many processes, as data for `prepare`."""
