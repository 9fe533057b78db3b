//! What forbids user namespaces.

use std::fs;
use std::io;

use kiln_core::IoError;

use crate::error::{EnterError, Obstacle};

pub(super) fn refused(error: nix::Error) -> EnterError {
    refused_by(&error.into())
}

/// Finds out what forbids it.
pub(super) fn refused_by(error: &io::Error) -> EnterError {
    const SETTINGS: [(&str, &str, &str); 3] = [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ];
    let setting = SETTINGS.into_iter().find_map(|(name, forbids, want)| {
        let value = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
        let value = value.trim().to_owned();
        (value == forbids).then(|| Obstacle::Sysctl { name: name.to_owned(), value, want: want.to_owned() })
    });
    let filtered =
        || fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("Seccomp:\t2"));
    let obstacle = setting.unwrap_or_else(|| if filtered() { Obstacle::Seccomp } else { Obstacle::Unknown });
    refused_with(error, obstacle)
}

pub(super) fn refused_with(error: &io::Error, obstacle: Obstacle) -> EnterError {
    let IoError { message, .. } = IoError::new("", "", error);
    EnterError::NoUserNamespaces { message, obstacle }
}
