//! Tars whose entries have owners, devices, capabilities and attributes.

use tar::{Builder, EntryType, Header};

/// `cap_net_raw+ep` as `setcap` writes it: revision 2, effective, then permitted and inheritable bits, low words first
/// (capabilities(7), linux/capability.h).
pub(crate) const NET_RAW: &[u8] =
    b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

/// A tar in the making.
pub(crate) struct Odd(Builder<Vec<u8>>);

/// What an entry says of itself.
#[derive(Clone, Copy)]
pub(crate) struct As<'a> {
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) xattrs: &'a [(&'a str, &'a [u8])],
}

impl As<'_> {
    pub(crate) const fn of(mode: u32, owner: (u64, u64)) -> Self {
        Self { mode, owner, xattrs: &[] }
    }
}

impl Odd {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub(crate) fn dir(self, name: &str, what: As<'_>) -> Self {
        self.put(EntryType::Directory, name, what, "", b"", (0, 0))
    }

    pub(crate) fn file(self, name: &str, what: As<'_>, content: &str) -> Self {
        self.put(EntryType::Regular, name, what, "", content.as_bytes(), (0, 0))
    }

    pub(crate) fn link(self, name: &str, owner: (u64, u64), target: &str) -> Self {
        self.put(EntryType::Symlink, name, As::of(0o777, owner), target, b"", (0, 0))
    }

    pub(crate) fn hard(self, name: &str, target: &str) -> Self {
        self.put(EntryType::Link, name, As::of(0o644, (0, 0)), target, b"", (0, 0))
    }

    pub(crate) fn fifo(self, name: &str, what: As<'_>) -> Self {
        self.put(EntryType::Fifo, name, what, "", b"", (0, 0))
    }

    pub(crate) fn device(self, name: &str, what: As<'_>, kind: EntryType, numbers: (u32, u32)) -> Self {
        self.put(kind, name, what, "", b"", numbers)
    }

    fn put(
        mut self,
        kind: EntryType,
        name: &str,
        what: As<'_>,
        link: &str,
        content: &[u8],
        (major, minor): (u32, u32),
    ) -> Self {
        let keys: Vec<String> = what.xattrs.iter().map(|(key, _)| format!("SCHILY.xattr.{key}")).collect();
        let pax = keys.iter().map(String::as_str).zip(what.xattrs.iter().map(|(_, value)| *value));
        self.0.append_pax_extensions(pax).expect("memory");
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_path(name).expect("a short name");
        if !link.is_empty() {
            header.set_link_name_literal(link).expect("a short target");
        }
        header.set_mode(what.mode);
        header.set_uid(what.owner.0);
        header.set_gid(what.owner.1);
        header.set_mtime(900_000_000);
        header.set_size(content.len() as u64);
        header.set_device_major(major).and_then(|()| header.set_device_minor(minor)).expect("ustar has them");
        header.set_cksum();
        self.0.append(&header, content).expect("memory");
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("memory")
    }
}
