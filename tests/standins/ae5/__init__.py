"""Anaconda Enterprise 5 (AE5) as far as we meet it: a cluster, and the program `ae5`.

`cluster.py` is the cluster: HTTPS, sign-in, the API, a gateway in front of the deployments, pods
that run uploaded commands for real. `program.py` is the program `ae5` of ae5-tools 0.7.3, which
speaks to it. `plugin.py` has the fixtures.

Sources: the public code of ae5-tools 0.7.3 (what it asks for and how it understands the answers),
the tests that ae5-tools once ran against a live cluster, the documentation of AE5, anaconda-project
0.13. Where none of them says what a cluster does, the code says "assumed".
"""
