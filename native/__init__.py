"""Makes the compiled build of Pointsman: the same sources through mypyc, three times as fast where it matters (ADR 0014)."""
