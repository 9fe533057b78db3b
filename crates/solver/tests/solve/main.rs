//! Solving graphs with a fake worker and an index in memory.

mod bench;
mod claims;
mod elsewhere;
mod failures;
mod hits;
mod linked;
mod long;
mod outdated;
mod parallel;
mod places;
mod random;
mod remote;
