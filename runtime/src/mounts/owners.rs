//! Directories of the machine whose files belong to somebody else inside: idmapped mounts, mount_setattr(2), Linux 5.12.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use kiln_core::{IoError, IoResultExt as _};
use nix::sched::CloneFlags;
use rustix::fs::CWD;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::enter::Entered;
use crate::ids;
use crate::sys::{self, MountAttr};

/// MOUNT_ATTR_IDMAP of <linux/mount.h>.
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Shows the directory `path` to this process and its steps with one owner and one group in place of others: each is given as the
/// number on disk, and the one that is seen. What belongs to the one that is seen, on disk, is nobody's there; all others are
/// themselves. Nobody else sees it so, and it ends with the process.
///
/// # Errors
/// The kernel or the file system cannot do it, or the right to is missing. Nothing is changed then.
pub fn show_owner(_entered: &Entered, path: &Path, uid: (u32, u32), gid: (u32, u32)) -> Result<(), IoError> {
    let tree = open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
        .at("map the owner of", path)?;
    let namespace = namespace(uid, gid).at("map the owner of", path)?;
    let attributes = MountAttr {
        set: MOUNT_ATTR_IDMAP,
        userns_fd: u64::try_from(namespace.as_raw_fd()).unwrap_or(u64::MAX),
        ..MountAttr::default()
    };
    use std::os::fd::AsFd as _;
    sys::mount_setattr(tree.as_fd(), false, attributes).at("map the owner of", path)?;
    super::set(tree.as_fd(), false, MountAttrFlags::MOUNT_ATTR_NODEV).at("mount", path)?;
    move_mount(&tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at("mount over", path)
}

/// A user namespace with these maps. It needs a process to be made, which waits until they are written: by this one, which has
/// the rights outside.
fn namespace(uid: (u32, u32), gid: (u32, u32)) -> io::Result<File> {
    let (mut told, tell) = io::pipe()?;
    let (wait, mut go) = io::pipe()?;
    std::thread::scope(|scope| {
        let child = scope.spawn(move || {
            // The thread stands still while the child is there.
            let made = sys::vfork(CloneFlags::CLONE_NEWUSER.bits(), &mut || {
                // It has the other end of its pipe as well, and would wait for ever.
                let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
                let pid = nix::unistd::getpid().as_raw().to_ne_bytes();
                let waited = (&tell).write_all(&pid).and_then(|()| (&wait).read(&mut [0]));
                i32::from(waited.is_err())
            });
            made.and_then(|(pid, _)| Ok(nix::sys::wait::waitpid(pid, None).map(drop)?))
        });
        let mut pid = [0; 4];
        let made = told.read_exact(&mut pid).and_then(|()| {
            let process = format!("/proc/{}", i32::from_ne_bytes(pid));
            let own = |kind: &str| {
                Ok::<_, io::Error>(ids::parse_map(&fs::read_to_string(format!("/proc/self/{kind}_map"))?))
            };
            fs::write(format!("{process}/gid_map"), ids::shown_as(&own("gid")?, gid.0, gid.1))?;
            fs::write(format!("{process}/uid_map"), ids::shown_as(&own("uid")?, uid.0, uid.1))?;
            File::open(format!("{process}/ns/user"))
        });
        // However it went, the child ends now.
        let _ = go.write_all(b"!");
        let ended = child.join().unwrap_or_else(|_| Err(io::Error::other("the mapping thread panicked")));
        match ended {
            // Why there was no child is what there is to say.
            Err(error) => Err(error),
            Ok(()) => made,
        }
    })
}
