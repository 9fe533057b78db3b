//! Layout directories and archives: written, read back, added to, damaged, and held against other tools.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use kiln_core::{Digest, ImageRef, IoError, Platform};
use kiln_oci::{
    ARCHIVE_HEAD, ArchiveWriter, BlobInfo, BlobSource, Document, Layout, MediaTypes, OciError, Root,
    archive_entry, index, write_archive_into, write_docker_archive, write_layout_dir, write_layout_tar,
};
use kiln_testkit::image::TestImage;
use kiln_testkit::tools::{run, tool};

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn names(texts: &[&str]) -> Vec<ImageRef> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn image(content: &str) -> TestImage {
    TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("hello", content)], &[("etc/more", "more")]])
}

fn root<'a>(image: &'a TestImage, names: &'a [ImageRef]) -> Root<'a> {
    Root {
        document: &image.image.manifest,
        platform: Some(&image.image.platform),
        names,
        annotations: None,
        tag: None,
    }
}

fn tar_of(image: &TestImage, names: &[ImageRef]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_layout_tar(&mut bytes, &[root(image, names)], image).unwrap();
    bytes
}

#[test]
fn what_is_written_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let (dest, archive) = (directory.path().join("layout"), directory.path().join("layout.tar"));
    let (image, names) = (image("one"), names(&["demo:1"]));
    write_layout_dir(&dest, &[root(&image, &names)], &image).unwrap();
    fs::write(&archive, tar_of(&image, &names)).unwrap();
    assert_eq!(fs::read(&archive).unwrap(), tar_of(&image, &names), "twice the same bytes");
    for path in [&dest, &archive] {
        let layout = Layout::open(path).unwrap();
        let by_digest = Some(image.image.manifest.digest);
        for (tag, digest) in
            [(None, None), (Some("1"), None), (Some("docker.io/library/demo:1"), None), (None, by_digest)]
        {
            let loaded = layout.load(tag, digest, &amd64()).unwrap();
            assert_eq!(loaded.manifest, image.image.manifest);
            assert_eq!(loaded.config, image.image.config);
            assert_eq!(loaded.layers, image.image.layers);
        }
        for layer in &image.image.layers {
            let info =
                BlobInfo { media_type: layer.media_type.clone(), digest: layer.digest, size: layer.size };
            let mut bytes = Vec::new();
            layout.blob(&info).unwrap().read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, image.blobs[&layer.digest]);
        }
        let missing = layout.load(Some("2"), None, &amd64()).unwrap_err();
        assert!(missing.to_string().contains("has no image 2; it has docker.io/library/demo:1"), "{missing}");
    }
    let left: Vec<_> = fs::read_dir(&dest).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "no temporary file stays: {left:?}");
}

#[test]
fn a_layout_is_added_to_and_names_move() {
    let directory = tempfile::tempdir().unwrap();
    let dest = directory.path();
    let (one, two) = (image("one"), image("two"));
    let (a, b) = (names(&["a:1", "a:2"]), names(&["a:2", "b:2"]));
    write_layout_dir(dest, &[root(&one, &a)], &one).unwrap();
    write_layout_dir(dest, &[root(&two, &b)], &two).unwrap();
    write_layout_dir(dest, &[root(&two, &b)], &two).unwrap();
    let layout = Layout::open(dest).unwrap();
    let actual: Vec<_> =
        layout.entries().unwrap().into_iter().map(|entry| (entry.name, entry.info.digest)).collect();
    let (one, two) = (one.image.manifest.digest, two.image.manifest.digest);
    let full = |name: &str| Some(format!("docker.io/library/{name}"));
    assert_eq!(actual, [(full("a:1"), one), (None, one), (full("a:2"), two), (full("b:2"), two)]);
}

#[test]
fn an_index_carries_all_its_images() {
    let directory = tempfile::tempdir().unwrap();
    let amd = image("amd");
    let arm = TestImage::new("linux/arm64", MediaTypes::Oci, &[&[("hello", "arm")]]);
    let index = index(&[&amd.image, &arm.image], &BTreeMap::new());
    let all = amd.clone().and(&arm).with(&index);
    let names = names(&["both"]);
    let root = Root { document: &index, platform: None, names: &names, annotations: None, tag: None };
    write_layout_dir(directory.path(), std::slice::from_ref(&root), &all).unwrap();
    let layout = Layout::open(directory.path()).unwrap();
    for (platform, expected) in [("linux/amd64", &amd), ("linux/arm64", &arm)] {
        let loaded = layout.load(Some("latest"), None, &platform.parse().unwrap()).unwrap();
        assert_eq!(loaded.manifest, expected.image.manifest);
        assert_eq!(loaded.root, index);
    }
    // A manifest inside, by its digest alone.
    let inner = layout.load(None, Some(arm.image.manifest.digest), &amd64()).unwrap();
    assert_eq!(inner.manifest.digest, arm.image.manifest.digest);
    let none = layout.load(None, None, &"linux/s390x".parse().unwrap()).unwrap_err();
    assert_eq!(none.to_string(), "there is no image for linux/s390x; there is linux/amd64, linux/arm64");
    let error = write_docker_archive(&mut Vec::new(), &[root], &all).unwrap_err();
    assert!(error.to_string().contains("one platform"), "{error}");
}

#[test]
fn damage_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let image = image("one");
    let blob = |dest: &Path, digest: &Digest| dest.join("blobs/sha256").join(digest.hex());
    let (manifest, config) = (image.image.manifest.digest, image.image.config.digest);
    let layer = &image.image.layers[0];
    let info = BlobInfo { media_type: layer.media_type.clone(), digest: layer.digest, size: layer.size };
    type Damage<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, Damage<'_>); 7] = [
        ("has no file oci-layout", &|dest| fs::remove_file(dest.join("oci-layout")).unwrap()),
        ("its version is 9", &|dest| {
            fs::write(dest.join("oci-layout"), r#"{"imageLayoutVersion":"9"}"#).unwrap()
        }),
        ("index.json cannot be read", &|dest| fs::write(dest.join("index.json"), "[").unwrap()),
        ("has no blob", &|dest| fs::remove_file(blob(dest, &config)).unwrap()),
        ("bytes where its descriptor says", &|dest| fs::write(blob(dest, &manifest), "{}").unwrap()),
        ("has other bytes", &|dest| {
            let mut bytes = fs::read(blob(dest, &config)).unwrap();
            bytes[0] ^= 1;
            fs::write(blob(dest, &config), bytes).unwrap();
        }),
        ("has other bytes", &|dest| {
            let mut bytes = fs::read(blob(dest, &layer.digest)).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(blob(dest, &layer.digest), bytes).unwrap();
        }),
    ];
    for (number, (expected, damage)) in cases.iter().enumerate() {
        let dest = directory.path().join(number.to_string());
        write_layout_dir(&dest, &[root(&image, &[])], &image).unwrap();
        damage(&dest);
        let whole = || -> Result<(), OciError> {
            let layout = Layout::open(&dest)?;
            layout.load(None, None, &amd64())?;
            let read = layout.blob(&info)?.read_to_end(&mut Vec::new());
            read.map(drop).map_err(|error| error.downcast::<OciError>().unwrap())
        };
        let error = whole().unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
    // Every truncation of an archive fails, none panics; only the padding of the last blob may go.
    let archive = directory.path().join("cut.tar");
    let bytes = tar_of(&image, &[]);
    for length in (0..bytes.len() - 1024 - 512).step_by(97) {
        fs::write(&archive, &bytes[..length]).unwrap();
        let read = Layout::open(&archive).and_then(|layout| {
            layout.load(None, None, &amd64())?;
            for layer in &image.image.layers {
                let (media_type, digest, size) = (layer.media_type.clone(), layer.digest, layer.size);
                let info = BlobInfo { media_type, digest, size };
                let read = layout.blob(&info)?.read_to_end(&mut Vec::new());
                read.map_err(|error| error.downcast::<OciError>().unwrap())?;
            }
            Ok(())
        });
        assert!(read.is_err(), "cut at {length} of {}", bytes.len());
    }
    fs::write(&archive, kiln_testkit::image::gzip(&bytes)).unwrap();
    assert!(Layout::open(&archive).unwrap_err().to_string().contains("compressed"));
}

#[test]
fn a_directory_with_other_files_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("main.rs"), "").unwrap();
    let image = image("one");
    let error = write_layout_dir(directory.path(), &[root(&image, &[])], &image).unwrap_err();
    assert!(error.to_string().contains("other files, such as main.rs"), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// A store: blobs as files.
struct Files<'a>(PathBuf, &'a TestImage);

impl BlobSource for Files<'_> {
    fn open(&self, digest: &Digest) -> Result<Box<dyn std::io::Read + '_>, IoError> {
        self.1.open(digest)
    }

    fn path(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.0.join(digest.hex());
        path.exists().then_some(path)
    }
}

#[test]
fn only_what_nobody_may_write_is_linked() {
    let directory = tempfile::tempdir().unwrap();
    let (image, store, dest) = (image("one"), directory.path().join("store"), directory.path().join("dest"));
    fs::create_dir(&store).unwrap();
    let layers: Vec<Digest> = image.image.layers.iter().map(|layer| layer.digest).collect();
    for (digest, mode) in layers.iter().zip([0o444, 0o644]) {
        let path = store.join(digest.hex());
        fs::write(&path, &image.blobs[digest]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    write_layout_dir(&dest, &[root(&image, &[])], &Files(store.clone(), &image)).unwrap();
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    for (digest, linked) in layers.iter().zip([true, false]) {
        let same = inode(store.join(digest.hex())) == inode(dest.join("blobs/sha256").join(digest.hex()));
        assert_eq!(same, linked);
        assert_eq!(fs::read(dest.join("blobs/sha256").join(digest.hex())).unwrap(), image.blobs[digest]);
    }
    // A store that lost bytes does not spread.
    let path = store.join(layers[1].hex());
    fs::write(&path, "short").unwrap();
    let other = directory.path().join("other");
    let error = write_layout_dir(&other, &[root(&image, &[])], &Files(store, &image)).unwrap_err();
    assert!(matches!(error, OciError::SizeMismatch { .. }), "{error}");
    assert!(!other.join("index.json").exists());
}

#[test]
fn writers_at_once_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let dest = directory.path();
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let image = image(&number.to_string());
                let names = names(&[&format!("image:{number}")]);
                write_layout_dir(dest, &[root(&image, &names)], &image).unwrap();
            });
        }
    });
    let layout = Layout::open(dest).unwrap();
    for number in 0..8 {
        let loaded = layout.load(Some(&number.to_string()), None, &amd64()).unwrap();
        assert_eq!(loaded.manifest, image(&number.to_string()).image.manifest);
    }
}

#[test]
fn skopeo_and_umoci_read_layouts() {
    let directory = tempfile::tempdir().unwrap();
    let (layout, archive) = (directory.path().join("layout"), directory.path().join("layout.tar"));
    let (image, names) = (image("#!/bin/true"), names(&["demo:1"]));
    write_layout_dir(&layout, &[root(&image, &names)], &image).unwrap();
    fs::write(&archive, tar_of(&image, &names)).unwrap();
    let expected = image.image.manifest.digest.to_string();
    for from in [format!("oci:{}:1", layout.display()), format!("oci-archive:{}:1", archive.display())] {
        let Some(mut skopeo) = tool("skopeo") else { break };
        let inspected = run(skopeo.args(["inspect", "--format", "{{.Digest}} {{.Architecture}}", &from]));
        assert_eq!(inspected.trim(), format!("{expected} amd64"), "{from}");
        let copy = directory.path().join("copy");
        run(tool("skopeo").unwrap().args(["copy", "-q", &from, &format!("dir:{}", copy.display())]));
    }
    if let Some(mut umoci) = tool("umoci") {
        let bundle = directory.path().join("bundle");
        let from = format!("{}:1", layout.display());
        run(umoci.args(["unpack", "--rootless", "--image", &from]).arg(&bundle));
        assert_eq!(fs::read_to_string(bundle.join("rootfs/hello")).unwrap(), "#!/bin/true");
        assert_eq!(fs::read_to_string(bundle.join("rootfs/etc/more")).unwrap(), "more");
    }
    // And the other way round: what skopeo makes of it is read here.
    if let Some(mut skopeo) = tool("skopeo") {
        let theirs = directory.path().join("theirs.tar");
        let (from, to) =
            (format!("oci:{}:1", layout.display()), format!("oci-archive:{}:x", theirs.display()));
        run(skopeo.args(["copy", "-q", &from, &to]));
        let loaded = Layout::open(&theirs).unwrap().load(Some("x"), None, &amd64()).unwrap();
        assert_eq!(loaded.layers, image.image.layers);
    }
}

#[test]
fn docker_archives_are_read_as_what_they_are_and_as_layouts() {
    let directory = tempfile::tempdir().unwrap();
    for (number, family) in [MediaTypes::Docker, MediaTypes::Oci].into_iter().enumerate() {
        let image =
            TestImage::new("linux/amd64", family, &[&[("hello", "x")], &[("b", "y")], &[("hello", "x")]]);
        let names = names(&["demo:1", "127.0.0.1:5000/other:2"]);
        let path = directory.path().join(format!("{number}.tar"));
        let mut bytes = Vec::new();
        write_docker_archive(&mut bytes, &[root(&image, &names)], &image).unwrap();
        fs::write(&path, bytes).unwrap();
        let loaded = Layout::open(&path).unwrap().load(Some("1"), None, &amd64()).unwrap();
        assert_eq!(loaded.manifest, image.image.manifest);
        for from in [
            format!("docker-archive:{}:demo:1", path.display()),
            format!("docker-archive:{}:127.0.0.1:5000/other:2", path.display()),
            format!("oci-archive:{}:1", path.display()),
        ] {
            let Some(mut skopeo) = tool("skopeo") else { break };
            // It finds OCI manifests only in an OCI archive.
            if from.starts_with("oci-archive") && family == MediaTypes::Docker {
                continue;
            }
            let config = run(skopeo.args(["inspect", "--config", "--raw", &from]));
            assert_eq!(Digest::of(config.as_bytes()), image.image.config.digest, "{from}");
            let copy = directory.path().join("copy");
            run(tool("skopeo").unwrap().args(["copy", "-q", &from, &format!("dir:{}", copy.display())]));
        }
        if let Some(mut podman) = tool("podman") {
            let storage = directory.path().join(format!("podman{number}"));
            let base = |podman: &mut std::process::Command| {
                podman.arg("--root").arg(storage.join("root")).arg("--runroot").arg(storage.join("run"));
                podman.args(["--storage-driver", "vfs"]);
            };
            base(&mut podman);
            run(podman.args(["load", "-q", "-i"]).arg(&path));
            let mut podman = tool("podman").unwrap();
            base(&mut podman);
            let id = run(podman.args(["images", "-q", "--no-trunc", "demo:1"]));
            assert_eq!(id.lines().next().unwrap(), image.image.config.digest.to_string());
        }
    }
}

#[test]
fn a_missing_blob_leaves_no_index() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = image("one");
    image.blobs.remove(&image.image.layers[1].digest);
    let dest = directory.path().join("layout");
    let error = write_layout_dir(&dest, &[root(&image, &[])], &image).unwrap_err();
    assert!(matches!(error, OciError::Io(_)), "{error}");
    assert!(!dest.join("index.json").exists());
    // An image that is no manifest is refused before anything is written.
    let document = Document::new("application/json", b"{}".to_vec());
    let root = Root { document: &document, platform: None, names: &[], annotations: None, tag: None };
    assert!(write_layout_dir(&directory.path().join("none"), &[root], &image).is_err());
    assert!(!directory.path().join("none").exists());
}

/// What has some blobs already, wherever they come.
struct Begun {
    bytes: Vec<u8>,
    there: Vec<Digest>,
    gaps: Vec<(usize, Digest)>,
}

impl std::io::Write for Begun {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl ArchiveWriter for Begun {
    fn has(&mut self, digest: &Digest, size: u64) -> std::io::Result<bool> {
        let is_there = self.there.contains(digest);
        if is_there {
            self.gaps.push((self.bytes.len(), *digest));
            self.bytes.resize(self.bytes.len() + usize::try_from(size).unwrap(), 0);
        }
        Ok(is_there)
    }
}

#[test]
fn layers_come_first_and_those_that_are_there_are_left_out() {
    let image = image("one");
    let names = names(&["demo:1"]);
    let layers: Vec<_> = image.image.layers.iter().map(|layer| layer.digest).collect();
    for docker in [false, true] {
        let mut whole = Vec::new();
        match docker {
            true => write_docker_archive(&mut whole, &[root(&image, &names)], &image).unwrap(),
            false => write_layout_tar(&mut whole, &[root(&image, &names)], &image).unwrap(),
        }
        let mut begun = Begun { bytes: Vec::new(), there: layers.clone(), gaps: Vec::new() };
        // A blob that is there is not asked for.
        let mut rest = image.clone();
        rest.blobs.retain(|digest, _| !layers.contains(digest));
        write_archive_into(&mut begun, &[root(&image, &names)], &rest, docker).unwrap();
        assert_eq!(begun.gaps.iter().map(|gap| gap.1).collect::<Vec<_>>(), layers, "from the lowest up");
        let mut at = ARCHIVE_HEAD;
        for ((gap, digest), layer) in begun.gaps.iter().zip(&image.image.layers) {
            assert_eq!(*gap as u64, at + archive_entry(0), "where it can be known beforehand");
            at += archive_entry(layer.size);
            let content = &image.blobs[digest];
            begun.bytes[*gap..gap + content.len()].copy_from_slice(content);
        }
        assert!(begun.bytes == whole, "the same archive");
    }
}
