#!/usr/bin/env python3
"""Writes incomplete-beta.csv: reference values of ln I_p(x,y), ln(1 - I_p(x,y)) and ln B(x,y), and of ln E of the
test above the limit p and of its mirror, for k of n bad requests and a prior (a,b) = (x-k, y-n+k).

Independent of the crate: mpmath with 60 digits (`pip install mpmath`, 1.4 used). Where its hypergeometric
series does not converge, the integral is done by mpmath's quadrature around its peak.
Run: python3 reference.py > incomplete-beta.csv
"""
from mpmath import mp, mpf, beta, betainc, log, loggamma, quad, sqrt, exp

mp.dps = 60


def ln_beta(x, y):
    return loggamma(x) + loggamma(y) - loggamma(x + y)


def ln_integral(x, y, low, high):
    """ln of the integral of t^(x-1) (1-t)^(y-1) from low to high."""
    mode = (x - 1) / (x + y - 2) if x > 1 and y > 1 else mpf(1) / 2
    peak = min(max(mode, low), high)
    f = lambda t: (x - 1) * log(t) + (y - 1) * log(1 - t)
    top = f(peak)
    sd = sqrt(x * y / (x + y) ** 3)
    slope = abs((x - 1) / peak - (y - 1) / (1 - peak)) if 0 < peak < 1 else mpf(0)
    scale = min(sd, 1 / slope) if slope else sd
    points = {low, high, peak}
    for m in (0.5, 1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100, 200):
        points |= {p for p in (peak - m * scale, peak + m * scale) if low < p < high}
    return top + log(quad(lambda t: exp(f(t) - top), sorted(points)))


def rows():
    for n in (0, 1, 10, 300, 10**4, 10**6, 10**9):
        for p in ("1e-4", "0.003", "0.01", "0.05", "0.3", "0.9"):
            mean = n * mpf(p)
            sd = sqrt(mean * (1 - mpf(p)))
            ks = {0, n, int(mean), int(mean * mpf("0.3")), int(min(3 * mean, n))}
            ks |= {int(min(max(mean + z * sd, 0), n)) for z in (-6, -2, 2, 6, 12)}
            for k in sorted(ks):
                for a, b in ((mpf(1) / 2, mpf(10)), (mpf(1) / 2, mpf(100))):
                    yield n, k, a, b, p


def ln_tails(x, y, q):
    """ln I_q(x,y), ln(1 - I_q(x,y)) and ln B(x,y)."""
    whole = ln_beta(x, y)
    if x + y < 20000:
        return log(betainc(x, y, 0, q)) - whole, log(betainc(y, x, 0, 1 - q)) - whole, whole
    # Where one tail is nearly everything its logarithm comes from the other one.
    if q * (x + y) > x:
        upper = ln_integral(x, y, q, mpf(1)) - whole
        return log(1 - exp(upper)), upper, whole
    lower = ln_integral(x, y, mpf(0), q) - whole if x > 1 else log(betainc(x, y, 0, q)) - whole
    return lower, log(1 - exp(lower)), whole


print("n,k,a,b,p,ln_lower,ln_upper,ln_beta,ln_above,ln_below")
for n, k, a, b, p in rows():
    # What a double makes of the limit, so that its rounding is not counted as an error of the function.
    q = mpf(float(p))
    lower, upper, whole = ln_tails(a + k, b + n - k, q)
    lower0, upper0, whole0 = ln_tails(a, b, q)
    likelihood = k * log(q) + (n - k) * log(1 - q)
    above = upper + whole - upper0 - whole0 - likelihood
    below = lower + whole - lower0 - whole0 - likelihood
    values = [mp.nstr(v, 20) for v in (lower, upper, whole, above, below)]
    print(",".join([str(n), str(k), mp.nstr(a, 5), mp.nstr(b, 5), p] + values), flush=True)
