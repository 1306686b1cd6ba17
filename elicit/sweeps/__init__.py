"""Sweeps: many runs as one folder of jobs, which any number of workers empty.

A sweep is a *folder*. No driver has to live: `plan` writes the jobs, and whoever sees the folder works on it, on one
machine or on a cluster's shared disk. `plan` says what the jobs are, `folder` how a job is leased, taken over from a
worker that died, set aside and finished, `worker` what a worker does, `launch` how several are started, and `joined`
what the results say together.
"""
