"""``tollkeeper bench``: measure the promises on this machine, beside a baseline, into bench.json."""
