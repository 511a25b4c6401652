"""From a store of traces to tables and a verdict: pure functions over the store's ibis tables. Loads no torch, langchain or SDK."""
