"""From tokens to pictures: training on a store, sampling a run, the demonstration."""
