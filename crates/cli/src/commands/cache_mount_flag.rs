//! `--cache-mount id=ID,path=DIR[,scope=SCOPE]`.

use std::path::Path;

use kiln::CachePlace;

use super::csv::fields;
use crate::config;
use crate::hints::Failure;

/// Reads the flags; the configuration file's places come before.
pub(super) fn read(texts: &[String]) -> Result<Vec<CachePlace>, Failure> {
    let asked = texts
        .iter()
        .map(|text| parse(text).map_err(|reason| Failure::usage(format!("--cache-mount {text}: {reason}"))));
    config::cache_mounts(asked.collect::<Result<_, _>>()?)
}

fn parse(text: &str) -> Result<CachePlace, String> {
    let (mut id, mut path, mut scope) = (None, None, None);
    for field in fields(text)? {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("{field:?} wants a value"))?;
        let slot = match key {
            "id" => &mut id,
            // What a bind mount's are called.
            "path" | "src" | "source" => &mut path,
            "scope" => &mut scope,
            "type" if value == "bind" => continue,
            _ => return Err(format!("{key:?} is not known; there are id, path and scope")),
        };
        if value.is_empty() {
            return Err(format!("{key} is empty"));
        }
        if slot.replace(value.to_owned()).is_some() {
            return Err(format!("{key} is given twice"));
        }
    }
    let id = id.ok_or("say which cache: id=ID, which is the target for a mount without an id")?;
    let path = path.ok_or("say where: path=DIR")?;
    let path = config::home(Path::new(&path)).ok_or("HOME is not set, so that ~ means nothing")?;
    let path = std::path::absolute(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(CachePlace { id, scope: scope.as_deref().map(config::scope_from), path, standing: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read() {
        let place = |id: &str, path: &str, scope: Option<&str>| CachePlace {
            id: id.to_owned(),
            scope: scope.map(config::scope_from),
            path: path.into(),
            standing: false,
        };
        assert_eq!(parse("id=pip,path=/c"), Ok(place("pip", "/c", None)));
        assert_eq!(parse("path=/c,id=/root/.cache/pip"), Ok(place("/root/.cache/pip", "/c", None)));
        assert_eq!(parse("type=bind,id=a,src=/c,scope=global"), Ok(place("a", "/c", Some("global"))));
        assert_eq!(
            parse("id=a,\"path=/x,y\",scope=linux/arm64"),
            Ok(place("a", "/x,y", Some("linux/arm64")))
        );
        let here = std::env::current_dir().expect("there is one").join("c");
        assert_eq!(parse("id=a,path=c").map(|place| place.path), Ok(here));
    }

    #[test]
    fn what_is_refused_and_why() {
        let rows = [
            ("", "wants a value"),
            ("id=a", "say where"),
            ("path=/c", "say which cache"),
            ("id=,path=/c", "id is empty"),
            ("id=a,path=", "path is empty"),
            ("id=a,id=b,path=/c", "given twice"),
            ("id=a,path=/c,sharing=locked", "\"sharing\" is not known"),
            ("id=a,path=/c,type=volume", "\"type\" is not known"),
            ("id=a,path=/c,", "wants a value"),
        ];
        for (text, expected) in rows {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
