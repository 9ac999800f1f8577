"""A second implementation of data/curriculum's drawn orders, from its documentation. Plain Python, no packages.

Prints the orders that data/curriculum/curriculum_test.go holds.
"""

from math import ceil, sqrt

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def draws(seed, epoch):
    x = mix(mix((seed + GOLDEN) & MASK) ^ epoch)
    while True:
        x = (x + GOLDEN) & MASK
        yield mix(x)


def shuffled(n, seed, epoch):
    order, stream = list(range(n)), draws(seed, epoch)
    for i in range(n - 1, 0, -1):
        j = next(stream) * (i + 1) >> 64
        order[i], order[j] = order[j], order[i]
    return order


def paced(difficulty, seed, epoch, c0=0.01):
    n, stream = len(difficulty), draws(seed, epoch)
    ranked = sorted(range(n), key=lambda i: difficulty[i])
    pool, opened, order = [], 0, []
    for i in range(n):
        competence = min(1.0, sqrt(i / n * (1 - c0 * c0) + c0 * c0))
        size = max(i + 1, min(n, ceil(n * competence)))
        pool += ranked[opened:size]
        opened = max(opened, size)
        j = next(stream) * len(pool) >> 64
        order.append(pool[j])
        pool[j] = pool[-1]
        pool.pop()
    return order


print("none ", shuffled(10, 42, 1))
print("paced", paced([5, 3, 8, 1, 9, 2, 7, 4, 6, 0], 42, 1))
