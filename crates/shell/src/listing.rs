//! What a file is, as `ls -l` and `stat` show it.

use std::fs::{FileType, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use crate::time;

/// One line of a long list, without line end. Owners are numbers: names are the image's business, and may lie.
pub(crate) fn line(path: &Path, name: &str, about: &Metadata) -> String {
    let size = match device(about) {
        Some((major, minor)) => format!("{major}, {minor}"),
        None => about.size().to_string(),
    };
    let mode = mode(about);
    let (links, uid, gid) = (about.nlink(), about.uid(), about.gid());
    let modified = time::shown(about.mtime());
    format!("{mode} {links:>3} {uid:>5} {gid:>5} {size:>10} {modified} {name}{}", target(path, about))
}

/// `drwxr-xr-x`.
pub(crate) fn mode(about: &Metadata) -> String {
    let mode = about.mode();
    let mut text = String::from(letter(about.file_type()));
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// ` -> TARGET` of a link.
pub(crate) fn target(path: &Path, about: &Metadata) -> String {
    match std::fs::read_link(path) {
        Ok(target) if about.is_symlink() => format!(" -> {}", target.display()),
        _ => String::new(),
    }
}

/// What kind of file.
pub(crate) fn kind(kind: FileType) -> &'static str {
    match letter(kind) {
        'd' => "directory",
        'l' => "symbolic link",
        'p' => "fifo",
        's' => "socket",
        'b' => "block device",
        'c' => "character device",
        _ => "file",
    }
}

/// Major and minor number of a device.
pub(crate) fn device(about: &Metadata) -> Option<(u64, u64)> {
    let kind = about.file_type();
    let number = about.rdev();
    // makedev(3).
    let major = (number >> 8) & 0xfff | (number >> 32) & !0xfff;
    let minor = number & 0xff | (number >> 12) & !0xff;
    (kind.is_block_device() || kind.is_char_device()).then_some((major, minor))
}

fn letter(kind: FileType) -> char {
    if kind.is_dir() {
        'd'
    } else if kind.is_symlink() {
        'l'
    } else if kind.is_fifo() {
        'p'
    } else if kind.is_socket() {
        's'
    } else if kind.is_block_device() {
        'b'
    } else if kind.is_char_device() {
        'c'
    } else {
        '-'
    }
}
