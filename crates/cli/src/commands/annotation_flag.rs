//! `--annotation [PLACE[PLATFORM],...:]KEY=VALUE`, and the same thing as a key of `--output`.

use kiln::{Annotation, AnnotationPlace};
use kiln_core::PlatformError;

use crate::hints::Failure;

/// Reads one `--annotation`: as many as it names places.
/// <https://docs.docker.com/build/metadata/annotations/>
pub(crate) fn parse(text: &str) -> Result<Vec<Annotation>, Failure> {
    read(text).map_err(|reason| Failure::usage(format!("--annotation {text}: {reason}")))
}

fn read(text: &str) -> Result<Vec<Annotation>, String> {
    let (key, value) = text.split_once('=').ok_or("it is KEY=VALUE, or manifest:KEY=VALUE")?;
    match key.split_once(':') {
        None => Ok(vec![make("", key, value)?]),
        Some((places, key)) => places.split(',').map(|place| make(place, key, value)).collect(),
    }
}

/// Reads a field of `--output` called `annotation`, from what follows that word: `.KEY`, `-index.KEY`,
/// `-manifest[linux/amd64].KEY`.
pub(super) fn field(rest: &str, value: &str) -> Result<Annotation, String> {
    // No place and no platform has a dot.
    let (place, key) = rest.split_once('.').ok_or("it is annotation.KEY, or annotation-index.KEY")?;
    make(place.strip_prefix('-').unwrap_or(place), key, value)
}

/// Makes one of a place, such as `manifest[linux/amd64]`; an empty one is the manifest.
fn make(place: &str, key: &str, value: &str) -> Result<Annotation, String> {
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(format!(
            "an annotation's key is a word, such as org.opencontainers.image.title, not {key:?}"
        ));
    }
    let (place, platform) = match place.split_once('[') {
        None => (place, None),
        Some((place, platform)) => {
            let platform = platform.strip_suffix(']').ok_or("a platform's bracket is not closed")?;
            (place, Some(platform.parse().map_err(|error: PlatformError| error.to_string())?))
        }
    };
    let known = AnnotationPlace::ALL.into_iter().find(|known| known.name() == place);
    let place = match (known, place) {
        (Some(known), _) => known,
        (None, "") => AnnotationPlace::Manifest,
        (None, other) => {
            let names = AnnotationPlace::ALL.map(AnnotationPlace::name).join(", ");
            return Err(format!("there are no annotations of {other:?}; there are {names}"));
        }
    };
    Ok(Annotation { place, platform, key: key.to_owned(), value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(annotation: &Annotation) -> String {
        let Annotation { place, platform, key, value } = annotation;
        let platform = platform.as_ref().map_or(String::new(), |platform| format!("[{platform}]"));
        format!("{}{platform} {key}={value}", place.name())
    }

    #[test]
    fn flags_as_buildx_reads_them() {
        let rows = [
            ("a=b", "manifest a=b"),
            ("a.B=c=d", "manifest a.B=c=d"),
            ("a=", "manifest a="),
            ("a=b:c", "manifest a=b:c"),
            ("index:a=b", "index a=b"),
            ("index,manifest:a=b", "index a=b; manifest a=b"),
            ("manifest[linux/arm/v7]:a=b", "manifest[linux/arm/v7] a=b"),
            (
                "index-descriptor,manifest-descriptor[linux/arm64]:a=b",
                "index-descriptor a=b; manifest-descriptor[linux/arm64] a=b",
            ),
        ];
        for (text, expected) in rows {
            let found: Vec<String> = read(text).expect(text).iter().map(shown).collect();
            assert_eq!(found.join("; "), expected, "{text}");
        }
        let refused = [
            ("a", "KEY=VALUE"),
            ("=b", "key is a word"),
            ("a b=c", "key is a word"),
            ("index:=b", "key is a word"),
            ("config:a=b", "no annotations of \"config\""),
            ("manifest[linux:a=b", "not closed"),
            ("manifest[ /x]:a=b", "not a platform"),
        ];
        for (text, reason) in refused {
            let error = read(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn fields_as_buildx_reads_them() {
        let rows = [
            (".a.B", "manifest a.B=v"),
            ("-index.a", "index a=v"),
            ("[linux/amd64].a", "manifest[linux/amd64] a=v"),
            ("-manifest-descriptor[linux/amd64].a", "manifest-descriptor[linux/amd64] a=v"),
        ];
        for (rest, expected) in rows {
            assert_eq!(shown(&field(rest, "v").expect(rest)), expected, "{rest}");
        }
        for (rest, reason) in [
            ("", "annotation.KEY"),
            ("-index", "annotation.KEY"),
            (".", "key is a word"),
            ("s.a", "of \"s\""),
        ] {
            let error = field(rest, "v").unwrap_err();
            assert!(error.contains(reason), "{rest}: {error}");
        }
    }
}
