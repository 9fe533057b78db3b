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

    /// The same on ext4, where a directory takes a block: nothing at all can be made when it is full. For root.
    pub(crate) fn ext4(place: &Place, size: &str) -> Option<Self> {
        let (mut mount, mut format) = (tool("mount")?, tool("mkfs.ext4")?);
        place.directory("small");
        let image = place.text("small.ext4");
        run(Command::new("truncate").args(["-s", size, &image]));
        // Without blocks that are kept for root.
        run(format.args(["-q", "-m", "0", &image]));
        run(mount.args(["-o", "loop", &image, &place.text("small")]));
        Some(Self(place.text("small")))
    }

    /// Fills all of it.
    pub(crate) fn fill(&self) {
        for size in [1 << 20, 4096, 1] {
            let made =
                |number: usize| std::fs::write(format!("{}/filler-{size}-{number}", self.0), vec![1; size]);
            let full = (0..10_000).find_map(|number| made(number).err()).expect("it has an end");
            assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        }
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
