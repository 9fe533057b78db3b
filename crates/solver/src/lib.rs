//! Keys, scheduling and cache look-up over a step graph.
