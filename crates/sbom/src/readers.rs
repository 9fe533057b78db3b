//! A reader for each package manager, and for what compilers leave in programs.

pub(crate) mod apk;
pub(crate) mod cargo;
pub(crate) mod dpkg;
pub(crate) mod elf;
pub(crate) mod go;
pub(crate) mod npm;
pub(crate) mod pip;
pub(crate) mod rpm;
