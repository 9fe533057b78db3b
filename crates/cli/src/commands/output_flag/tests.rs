use kiln::{Annotation, AnnotationPlace};

use super::*;

#[test]
fn fields_as_buildx_reads_them() {
    let form = ImageForm::default;
    let file = |name: &str| Some(PathBuf::from(name));
    let image = |push, store| Output::Image { form: form(), push, store };
    let rows = [
        ("type=oci,dest=a.tar", Output::Oci { dest: file("a.tar"), tar: true, form: form() }),
        ("type=oci,dest=a,tar=false", Output::Oci { dest: file("a"), tar: false, form: form() }),
        ("type=oci", Output::Oci { dest: None, tar: true, form: form() }),
        ("type=oci,\"dest=a,b\"", Output::Oci { dest: file("a,b"), tar: true, form: form() }),
        ("type=docker,dest=-", Output::Docker { dest: None, form: form() }),
        ("TYPE=docker,tar=true,dest=a=b", Output::Docker { dest: file("a=b"), form: form() }),
        ("type=local,dest=out", Output::Local { dest: "out".into() }),
        ("out", Output::Local { dest: "out".into() }),
        ("a=b", Output::Local { dest: "a=b".into() }),
        ("-", Output::Tar { dest: None }),
        ("type=tar, dest=-", Output::Tar { dest: None }),
        ("type=image", image(false, true)),
        ("type=image,push=", image(true, true)),
        ("type=image,push=T,store=0", image(true, false)),
        ("type=registry", image(true, false)),
        ("type=registry,store=true", image(true, true)),
        ("type=image,unpack=false,push-by-digest=false,rewrite-timestamp=true", image(false, true)),
        ("type=cacheonly", Output::CacheOnly),
    ];
    for (text, output) in rows {
        assert_eq!(read(text), Ok(output), "{text}");
    }
}

#[test]
fn the_form_of_an_image() {
    let text = "type=oci,\"name=a,127.0.0.1:5000/b:1\",compression=zstd,compression-level=19,\
                force-compression=true,oci-mediatypes=true,Annotation.a.B=c,annotation-index.d=e";
    let annotation = |place, key: &str, value: &str| Annotation {
        place,
        platform: None,
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let form = ImageForm {
        names: ["a", "127.0.0.1:5000/b:1"].map(|name| name.parse().expect(name)).into(),
        compression: LayerCompression::Zstd,
        level: Some(19),
        force_compression: true,
        oci_mediatypes: Some(true),
        annotations: vec![
            annotation(AnnotationPlace::Manifest, "a.B", "c"),
            annotation(AnnotationPlace::Index, "d", "e"),
        ],
    };
    assert_eq!(read(text), Ok(Output::Oci { dest: None, tar: true, form }));
    for compression in LayerCompression::ALL {
        let text = format!("type=docker,compression={}", compression.name());
        let form = ImageForm { compression, ..ImageForm::default() };
        assert_eq!(read(&text), Ok(Output::Docker { dest: None, form }), "{text}");
    }
}

#[test]
fn what_cannot_be_had_is_refused_by_name() {
    let rows = [
        ("", "empty"),
        ("dest=a,tar=true", "`type` is missing"),
        ("type=oci,dest", "no `=`"),
        ("type=oci,tar=false", "needs dest"),
        ("type=oci,tar=maybe", "true or false"),
        ("type=docker,tar=false,dest=a", "docker loads archives only"),
        ("type=local", "needs dest"),
        ("type=local,dest=-", "needs dest"),
        ("type=local,dest=a,name=b", "`name` does not go with type=local"),
        ("type=tar,tar=true", "`tar` goes with"),
        ("type=tar,compression=zstd", "`compression` does not go with type=tar"),
        ("type=cacheonly,annotation.a=b", "`annotation.a` does not go with type=cacheonly"),
        ("type=image,dest=a", "no dest"),
        ("type=image,store=false", "neither stores nor pushes"),
        ("type=oci,push=true", "`push` goes with type=image only"),
        ("type=oci,x=y", "`x` is unknown"),
        ("type=oci,name=A", "lower case"),
        ("type=oci,compression=xz", "gzip, zstd, uncompressed, estargz"),
        ("type=oci,compression-level=fast", "a number"),
        ("type=oci,compression-level=10", "gzip has 0 to 9"),
        ("type=oci,compression=zstd,compression-level=23", "zstd has 0 to 22"),
        ("type=oci,compression=uncompressed,compression-level=1", "has no compression-level"),
        ("type=oci,compression=zstd,oci-mediatypes=false", "no zstd layers"),
        ("type=oci,annotation.a=b,oci-mediatypes=false", "no annotations"),
        ("type=oci,annotation-index[linux/amd64].a=b", "an index is of every platform"),
        ("type=oci,annotations.a=b", "no annotations of \"s\""),
        ("type=image,unpack=true", "unpacked when a step needs them"),
        ("type=image,push-by-digest=true", "push-by-digest"),
        ("type=image,rewrite-timestamp=false", "SOURCE_DATE_EPOCH"),
        ("type=image,name-canonical=", "by its digest"),
        ("type=oci,source-date-epoch=0", "SOURCE_DATE_EPOCH"),
        ("type=local,dest=a,platform-split=false", "a directory each"),
        ("type=nydus", "is unknown"),
    ];
    for (text, reason) in rows {
        let error = read(text).expect_err(text);
        assert!(error.contains(reason), "{text}: {error}");
    }
}
