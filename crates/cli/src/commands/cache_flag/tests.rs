use kiln::{CacheMode, CacheTarget, LayerCompression, RecordPlace};

use super::{source, target};

fn registry(name: &str) -> RecordPlace {
    RecordPlace::Registry(name.parse().unwrap())
}

#[test]
fn sources_are_read_as_buildx_reads_them() {
    let cases = [
        ("user/app:cache", vec![registry("user/app:cache")]),
        ("one/a,two/b", vec![registry("one/a"), registry("two/b")]),
        ("type=registry,ref=host:5000/cache:main", vec![registry("host:5000/cache:main")]),
        ("type=local,src=some/dir", vec![RecordPlace::Local("some/dir".into())]),
        ("\"type=local\",\"src=with,comma\"", vec![RecordPlace::Local("with,comma".into())]),
    ];
    for (text, places) in cases {
        assert_eq!(source(text).as_ref(), Ok(&places), "{text}");
    }
}

#[test]
fn targets_are_read_as_buildx_reads_them() {
    let plain = CacheTarget::new(registry("a/b"));
    let cases = [
        ("a/b", plain.clone()),
        ("type=registry,ref=a/b", plain.clone()),
        ("type=registry,ref=a/b,mode=max", CacheTarget { mode: CacheMode::Max, ..plain.clone() }),
        (
            "type=registry,ref=a/b,compression=zstd,compression-level=9,image-manifest=true,oci-mediatypes=true",
            CacheTarget { compression: Some(LayerCompression::Zstd), level: Some(9), ..plain.clone() },
        ),
        ("type=registry,ref=a/b,ignore-error=true", CacheTarget { ignore_error: true, ..plain }),
        ("type=local,dest=dir", CacheTarget::new(RecordPlace::Local("dir".into()))),
        ("type=inline", CacheTarget::new(RecordPlace::Inline)),
    ];
    for (text, wanted) in cases {
        assert_eq!(target(text), Ok(vec![wanted]), "{text}");
    }
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let sources = [
        ("", "image reference"),
        ("ref=a/b", "`type` is missing"),
        ("type=registry", "needs ref"),
        ("type=registry,ref=A//b", "image reference"),
        ("type=registry,ref=a/b,src=c", "`src` does not go with type=registry"),
        ("type=local", "needs src=DIRECTORY"),
        ("type=local,src=a,dest=b", "goes with --cache-to"),
        ("type=local,src=a,digest=sha256:0", "`digest` as it is written here"),
        ("type=gha", "one provider's own protocol"),
        ("type=inline", "name the image"),
        ("type=what", "is unknown"),
        ("type=registry,ref=a/b,mode=max", "`mode` is unknown"),
    ];
    for (text, part) in sources {
        let reason = source(text).unwrap_err();
        assert!(reason.contains(part), "{text}: {reason}");
    }
    let targets = [
        ("type=registry,ref=a/b,mode=most", "min or max"),
        ("type=registry,ref=a/b,src=c", "goes with --cache-from"),
        ("type=registry,ref=a/b,image-manifest=false", "records are OCI image manifests"),
        ("type=registry,ref=a/b,compression=brotli", "is unknown"),
        ("type=registry,ref=a/b,compression=estargz", "take gzip"),
        ("type=registry,ref=a/b,compression-level=3", "goes with `compression`"),
        ("type=registry,ref=a/b,ignore-error=perhaps", "true or false"),
        ("type=inline,mode=max", "mode=min only"),
        ("type=inline,ref=a/b", "no ref"),
        ("type=inline,compression=zstd", "goes with --output"),
        ("type=s3,bucket=b", "one provider's own"),
        ("type=registry,ref=a/b,what=ever", "`what` is unknown"),
    ];
    for (text, part) in targets {
        let reason = target(text).unwrap_err();
        assert!(reason.contains(part), "{text}: {reason}");
    }
}
