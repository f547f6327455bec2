"""How fast EventFlows is beside its peers: `python -m benchmarks`. What is measured and how: docs/performance.md."""
