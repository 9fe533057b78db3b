//! `-v`, `--mount` and `--tmpfs` of `kiln run`, as docker reads them.

use std::path::PathBuf;

use kiln::{RunMount, RunMountKind, Sharing};

use super::machine_flags::size;
use crate::args::RunArgs;
use crate::hints::Failure;

/// Reads the flags.
pub(super) fn read(args: &RunArgs) -> Result<Vec<RunMount>, Failure> {
    type Read = fn(&str) -> Result<RunMount, String>;
    let flags: [(&str, &[String], Read); 3] = [
        ("--volume", &args.volume, volume),
        ("--mount", &args.mount, mount),
        ("--tmpfs", &args.tmpfs, tmpfs),
    ];
    let mut mounts: Vec<RunMount> = Vec::new();
    for (flag, texts, read) in flags {
        for text in texts {
            let wrong = |reason: String| Failure::usage(format!("{flag} {text}: {reason}"));
            let found = read(text).map_err(wrong)?;
            if mounts.iter().any(|known| known.target == found.target) {
                return Err(wrong(format!("something is mounted at {} already", found.target)));
            }
            mounts.push(found);
        }
    }
    Ok(mounts)
}

/// `[HOST:]DIR[:OPTIONS]`.
fn volume(text: &str) -> Result<RunMount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (host, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [host, target] => (Some(host), target, ""),
        [host, target, options] => (Some(host), target, options),
        _ => return Err("write [HOST:]DIR[:ro]".to_owned()),
    };
    let target = absolute(target)?;
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "z" | "Z" => return Err("labels of SELinux are not set; leave it out".to_owned()),
            _ => return Err(format!("{option:?} is not known; there are ro and rw")),
        }
    }
    let Some(host) = host else { return Ok(RunMount { target, kind: RunMountKind::Fresh }) };
    if !host.starts_with(['/', '.']) {
        return Err(format!(
            "volumes with names are not kept: write ./{host} for a directory, or --mount type=cache,id={host},target={target}"
        ));
    }
    Ok(RunMount { target, kind: RunMountKind::Bind { source: here(host)?, read_only, make: true } })
}

/// `KEY=VALUE,...`.
fn mount(text: &str) -> Result<RunMount, String> {
    let (mut kind, mut source, mut target, mut id) = (None, None, None, None);
    let (mut read_only, mut bytes, mut sharing) = (None, None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        let needed = || value.filter(|value| !value.is_empty()).ok_or_else(|| format!("{key} wants a value"));
        match key {
            "type" => kind = Some(needed()?),
            "source" | "src" => source = Some(needed()?),
            "target" | "dst" | "destination" => target = Some(absolute(needed()?)?),
            "id" => id = Some(needed()?.to_owned()),
            "readonly" | "ro" => {
                read_only = Some(match value {
                    None | Some("true" | "1") => true,
                    Some("false" | "0") => false,
                    Some(_) => return Err(format!("{key}: write true or false")),
                });
            }
            "tmpfs-size" => bytes = Some(size(needed()?).map_err(|reason| format!("{key}: {reason}"))?),
            "sharing" => {
                sharing = Some(match needed()? {
                    "shared" => Sharing::Shared,
                    "locked" => Sharing::Locked,
                    "private" => Sharing::Private,
                    other => {
                        return Err(format!(
                            "sharing {other:?} is not known; there are shared, locked and private"
                        ));
                    }
                });
            }
            _ => {
                return Err(format!(
                    "{key:?} is not known; there are type, source, target, readonly, tmpfs-size, id and sharing"
                ));
            }
        }
    }
    let target = target.ok_or("say where: target=DIR")?;
    let only = |wrong: &[(&str, bool)]| match wrong.iter().find(|(_, given)| *given) {
        Some((key, _)) => Err(format!("{key} means nothing for this type")),
        None => Ok(()),
    };
    let kind = match kind {
        Some("bind") => {
            only(&[("id", id.is_some()), ("tmpfs-size", bytes.is_some()), ("sharing", sharing.is_some())])?;
            let source = here(source.ok_or("say what: source=HOST")?)?;
            RunMountKind::Bind { source, read_only: read_only == Some(true), make: false }
        }
        Some("tmpfs") => {
            let given = [("source", source.is_some()), ("id", id.is_some()), ("sharing", sharing.is_some())];
            only(&given)?;
            only(&[("readonly", read_only == Some(true))])?;
            RunMountKind::Tmpfs { size: bytes.flatten() }
        }
        Some("cache") => {
            only(&[("source", source.is_some()), ("tmpfs-size", bytes.is_some())])?;
            RunMountKind::Cache {
                id,
                sharing: sharing.unwrap_or_default(),
                read_only: read_only == Some(true),
            }
        }
        Some("volume") | None => {
            return Err("volumes are not kept: write type=bind, type=tmpfs or type=cache".to_owned());
        }
        Some(other) => return Err(format!("type {other:?} is not known; there are bind, tmpfs and cache")),
    };
    Ok(RunMount { target, kind })
}

/// `DIR[:OPTIONS]`.
fn tmpfs(text: &str) -> Result<RunMount, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut bytes = None;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => bytes = size(value).map_err(|reason| format!("size: {reason}"))?,
            // What it is anyway.
            Some(("mode", "1777")) => {}
            None if matches!(option, "rw" | "nosuid" | "nodev") => {}
            _ => return Err(format!("{option:?} is not supported; there is size=SIZE")),
        }
    }
    Ok(RunMount { target: absolute(target)?, kind: RunMountKind::Tmpfs { size: bytes } })
}

fn absolute(target: &str) -> Result<String, String> {
    match target.trim_end_matches('/') {
        "" if target.starts_with('/') => Err("nothing can be mounted over the image itself".to_owned()),
        clean if clean.starts_with('/') => Ok(clean.to_owned()),
        _ => Err(format!("{target:?} is not absolute: it is a path in the image")),
    }
}

fn here(source: &str) -> Result<PathBuf, String> {
    std::path::absolute(source).map_err(|error| format!("{source}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted() {
        let bind = |target: &str, source: &str, read_only, make| {
            let kind = RunMountKind::Bind { source: source.into(), read_only, make };
            RunMount { target: target.to_owned(), kind }
        };
        let other = |target: &str, kind| RunMount { target: target.to_owned(), kind };
        let cache = |id: Option<&str>, sharing, read_only| RunMountKind::Cache {
            id: id.map(str::to_owned),
            sharing,
            read_only,
        };
        let (shared, locked) = (Sharing::Shared, Sharing::Locked);
        assert_eq!(volume("/a:/b"), Ok(bind("/b", "/a", false, true)));
        assert_eq!(volume("/a:/b/:ro"), Ok(bind("/b", "/a", true, true)));
        assert_eq!(volume("/a:/b:ro,rw"), Ok(bind("/b", "/a", false, true)));
        assert_eq!(volume("/b"), Ok(other("/b", RunMountKind::Fresh)));
        assert_eq!(mount("type=bind,src=/a,dst=/b,ro"), Ok(bind("/b", "/a", true, false)));
        assert_eq!(mount("target=/b,source=/a,type=bind,readonly=false"), Ok(bind("/b", "/a", false, false)));
        assert_eq!(mount("type=tmpfs,target=/t"), Ok(other("/t", RunMountKind::Tmpfs { size: None })));
        assert_eq!(
            mount("type=tmpfs,target=/t,tmpfs-size=1m"),
            Ok(other("/t", RunMountKind::Tmpfs { size: Some(1 << 20) }))
        );
        assert_eq!(mount("type=cache,target=/c"), Ok(other("/c", cache(None, shared, false))));
        assert_eq!(
            mount("type=cache,target=/c,id=x,sharing=locked,ro"),
            Ok(other("/c", cache(Some("x"), locked, true)))
        );
        assert_eq!(tmpfs("/run:rw,size=64k"), Ok(other("/run", RunMountKind::Tmpfs { size: Some(65536) })));
        let relative = std::env::current_dir().expect("there is one").join("src");
        assert_eq!(volume("./src:/b"), Ok(bind("/b", relative.to_str().expect("text"), false, true)));
    }

    #[test]
    fn what_is_refused_and_why() {
        let rows: [(Result<RunMount, String>, &str); 19] = [
            (volume("data:/b"), "volumes with names are not kept: write ./data"),
            (volume("/a:b"), "\"b\" is not absolute"),
            (volume("b"), "\"b\" is not absolute"),
            (volume("/"), "over the image itself"),
            (volume("/a:/b:z"), "SELinux"),
            (volume("/a:/b:nocopy"), "\"nocopy\" is not known"),
            (volume("/a:/b:ro:x"), "write [HOST:]DIR[:ro]"),
            (mount("target=/b"), "volumes are not kept"),
            (mount("type=volume,target=/b"), "volumes are not kept"),
            (mount("type=nfs,target=/b"), "type \"nfs\" is not known"),
            (mount("type=bind,source=/a"), "say where"),
            (mount("type=bind,target=/a"), "say what"),
            (mount("type=bind,source=/a,target=/b,id=x"), "id means nothing"),
            (mount("type=tmpfs,target=/b,source=/a"), "source means nothing"),
            (mount("type=cache,target=/b,sharing=some"), "there are shared, locked"),
            (mount("type=cache,target=/b,bind-propagation=rslave"), "\"bind-propagation\" is not known"),
            (mount("type=bind,source,target=/b"), "source wants a value"),
            (tmpfs("/run:exec"), "\"exec\" is not supported"),
            (tmpfs("run"), "not absolute"),
        ];
        for (number, (found, expected)) in rows.into_iter().enumerate() {
            let error = found.expect_err("it is refused");
            assert!(error.contains(expected), "{number}: {error}");
        }
    }
}
