//! Against git itself: what it serves is fetched, and what was written is compared with what it would write.

mod honest;
mod hostile;
mod kept;
mod submodules;
mod support;
mod times;
