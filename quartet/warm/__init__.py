"""Warm kernels: each is forked from a process in which its framework is already imported.

`provisioner` is what jupyter_client loads: it starts a warm kernel, or a plain one where it cannot.
`__main__` and `server` are the warm process; `shelf` keeps what it imported out of sight until the
notebook imports it too.
`client` speaks with it; `places` says where its socket is and what makes it out of date.
docs/warm-kernels.md tells how it works and what a fork cannot do.
"""
