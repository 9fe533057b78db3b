//! A file system that fills up soon.

use std::process::Command;

use kiln_testkit::tools::{run, tool};

use crate::place::Place;

/// A small file system of its own for a store, at `small`; unmounted when it is dropped.
pub(crate) struct Small(String);

impl Small {
    pub(crate) fn mount(place: &Place, options: &str) -> Option<Self> {
        let mut mount: Command = tool("mount")?;
        place.directory("small");
        let (uid, gid) = place.user.ids();
        let options = format!("{options},uid={uid},gid={gid},mode=755");
        run(mount.args(["-t", "tmpfs", "-o", &options, "kiln-e2e", &place.text("small")]));
        Some(Self(place.text("small")))
    }

    /// Mounts it with other options.
    pub(crate) fn remount(&self, options: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{options}"), &self.0]));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // What is left is a mount below a directory that cannot be removed: somebody will see it.
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}
