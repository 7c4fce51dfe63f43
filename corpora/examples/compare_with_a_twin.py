"""Find out what compression changed: the bundled model against its copy with weights of 4 bits."""

import lmfuzz

if __name__ == "__main__":
    result = lmfuzz.diff("models:shakespeare", twin="int4", budget="600x", seed=0, output="compared")
    print(result)
    result.shrink(1)
    small = result.findings[0].minimal
    print("the first finding", "did not fail again" if small is None else f"shrinks to {small.prompt!r}")
    again = lmfuzz.open("compared")
    print(len(again.findings), "findings in", len(again.buckets), "buckets")
    print(result.export("csv").splitlines()[0])
