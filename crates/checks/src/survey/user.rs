//! Who runs a step, and the users that steps make.

use std::collections::HashMap;

use super::Base;
use crate::shell::Call;

/// A user of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    /// As written, empty for root; none if nobody knows.
    pub(crate) name: Option<String>,
    /// Its number, if known.
    pub(crate) uid: Option<u32>,
    /// Its group's number, if known.
    pub(crate) gid: Option<u32>,
    /// Its home directory, if known.
    pub(crate) home: Option<String>,
}

/// What a user's creation said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Made {
    uid: Option<u32>,
    home: Option<String>,
}

/// Users made by steps, by name.
pub(crate) type MadeUsers = HashMap<String, Made>;

impl User {
    /// Understands USER.
    pub(crate) fn of(written: Option<&str>, base: &Base, made: &MadeUsers) -> Self {
        let Some(written) = written else { return Self::default() };
        let (user, group) =
            written.split_once(':').map_or((written, None), |(user, group)| (user, Some(group)));
        let group = group.and_then(|group| group.parse().ok());
        if user.is_empty() || user == "root" || user == "0" {
            return Self {
                name: Some(String::new()),
                uid: Some(0),
                gid: Some(0),
                home: Some("/root".to_owned()),
            };
        }
        let name = Some(user.to_owned());
        if let Ok(uid) = user.parse() {
            return Self { name, uid: Some(uid), gid: Some(group.unwrap_or(uid)), home: None };
        }
        if let Some(made) = made.get(user) {
            return Self { name, uid: made.uid, gid: group.or(made.uid), home: made.home.clone() };
        }
        match base.user_named(user) {
            Some((uid, home)) => {
                Self { name, uid: Some(uid), gid: Some(group.unwrap_or(uid)), home: Some(home.to_owned()) }
            }
            None => Self { name, ..Self::default() },
        }
    }

    /// Whether it is certainly somebody else than root.
    pub(crate) fn is_other(&self) -> bool {
        self.name.as_deref().is_some_and(|name| !name.is_empty())
    }

    /// Returns what the home directory most probably is.
    pub(crate) fn assumed_home(&self) -> String {
        match (&self.home, self.name.as_deref()) {
            (Some(home), _) => home.clone(),
            (None, None | Some("")) => "/root".to_owned(),
            (None, Some(name)) if name.parse::<u32>().is_ok() => "/".to_owned(),
            (None, Some(name)) => format!("/home/{name}"),
        }
    }
}

const VALUED: [&str; 26] = [
    "-u",
    "-g",
    "-G",
    "-s",
    "-d",
    "-h",
    "-c",
    "-k",
    "-K",
    "-b",
    "-e",
    "-f",
    "--uid",
    "--gid",
    "--groups",
    "--shell",
    "--home",
    "--home-dir",
    "--comment",
    "--gecos",
    "--ingroup",
    "--base-dir",
    "--skel",
    "--firstuid",
    "--lastuid",
    "-p",
];

/// Notes the user that `useradd` or `adduser` makes.
pub(crate) fn note(call: &Call, made: &mut MadeUsers) {
    if call.program != "useradd" && call.program != "adduser" {
        return;
    }
    let mut user = Made::default();
    let mut names = Vec::new();
    let mut has_home = true;
    let mut is_known = true;
    let mut args = call.args.iter();
    while let Some(arg) = args.next() {
        let Some(text) = arg.value.as_deref() else {
            is_known = false;
            continue;
        };
        if !text.starts_with('-') {
            names.push(text);
            continue;
        }
        let (flag, value) = match text.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None if VALUED.contains(&text) => (text, args.next().and_then(|next| next.value.clone())),
            None => (text, None),
        };
        match flag {
            "-u" | "--uid" => user.uid = value.and_then(|value| value.parse().ok()),
            "-d" | "--home-dir" | "--home" => user.home = value,
            // busybox
            "-h" if call.program == "adduser" => user.home = value,
            "--no-create-home" | "-H" | "--system" | "-b" | "--base-dir" => has_home = false,
            _ if !flag.starts_with("--") && flag.contains('u') && flag.ends_with('u') => {
                user.uid = args.next().and_then(|next| next.value.as_deref()?.parse().ok());
            }
            _ => {}
        }
    }
    let name = if call.program == "useradd" { names.last() } else { names.first() };
    let Some(name) = name else { return };
    if user.home.is_none() && has_home && is_known {
        user.home = Some(format!("/home/{name}"));
    }
    made.insert((*name).to_owned(), user);
}
