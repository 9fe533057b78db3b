//! The main job, held against other people's programs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;

use kiln_testkit::tools::{run, tool};

use crate::place::Place;
use crate::user::{User, for_each_user};

const MAIN: &str = "\
COPY app /app
RUN --mount=type=cache,target=/var/cache/x echo kept > /var/cache/x/f && mkdir -p /data/sub && echo made > /data/sub/made \\
    && ln -s sub/made /data/link && ln /data/sub/made /data/hard && chmod 4755 /data/sub/made && chmod 700 /data/sub
LABEL who=kiln
CMD [\"/bin/cat\", \"/app/hello\"]
";

fn main_place(user: User) -> Place {
    let place = Place::with(user, MAIN);
    place.file("context/app/hello", "hello\n");
    place
}

#[test]
fn an_archive_and_a_layout_are_read_by_skopeo() {
    for_each_user(|user| {
        let place = main_place(user);
        let built =
            place.build(&["-o", "type=oci,dest=image.tar", "-o", "type=oci,dest=image,tar=false"]).ok();
        let Some(mut skopeo) = tool("skopeo") else { return };
        for source in ["oci-archive:image.tar", "oci:image"] {
            let digest = run(skopeo_in(&place).args(["inspect", "--format", "{{.Digest}}", source]));
            assert_eq!(digest.trim(), built.digest(), "{source}");
        }
        // A copy reads every blob and checks its digest.
        skopeo.current_dir(place.path("")).args(["copy", "--quiet", "oci-archive:image.tar", "dir:copied"]);
        run(&mut skopeo);
        assert!(place.path("copied/manifest.json").exists());
    });
}

fn skopeo_in(place: &Place) -> std::process::Command {
    let mut skopeo = tool("skopeo").expect("it was there a moment ago");
    skopeo.current_dir(place.path(""));
    skopeo
}

#[test]
fn what_umoci_unpacks_is_what_kiln_run_sees() {
    for_each_user(|user| {
        let place = main_place(user);
        place.build(&["-t", "demo", "-o", "type=image", "-o", "type=oci,dest=image,tar=false"]).ok();
        let Some(mut umoci) = tool("umoci") else { return };
        let tag = layout_tag(&place, "image");
        umoci.current_dir(place.path("")).args(["unpack", "--image", &format!("image:{tag}"), "unpacked"]);
        if user == User::Caller {
            umoci.arg("--rootless");
        }
        run(&mut umoci);
        // One script looks at both trees: type and mode, owner, size, link count of files, name, and link targets.
        let look = "cd $1 && find . -xdev \\( -path ./proc -o -path ./sys -o -path ./dev \\) -prune -o -print | sort | \
                    while read -r f; do stat -c '%F %a %u:%g %n' $f; [ -L $f ] && readlink $f; \
                    [ -f $f ] && [ ! -L $f ] && echo $f $(md5sum < $f); done; :";
        let script = format!("f() {{ {look}; }}; f / ");
        let inside = place.run("demo", &script);
        let mut outside = std::process::Command::new("/bin/busybox");
        outside.args(["sh", "-c", &format!("f() {{ {look}; }}; f unpacked/rootfs")]);
        let outside = run(outside.current_dir(place.path("")));
        // What a running container has besides.
        let only_running = |line: &&str| !line.ends_with("./etc") && !line.contains("./etc/");
        let lines = |text: &str| text.lines().filter(only_running).map(str::to_owned).collect::<Vec<_>>();
        similar(&lines(&inside), &lines(&outside));
        assert!(outside.contains("regular file 4755 0:0 ./data/sub/made"), "{outside}");
    });
}

#[track_caller]
fn similar(left: &[String], right: &[String]) {
    let only =
        |a: &[String], b: &[String]| a.iter().filter(|line| !b.contains(line)).cloned().collect::<Vec<_>>();
    let (inside, outside) = (only(left, right), only(right, left));
    assert!(inside.is_empty() && outside.is_empty(), "only inside: {inside:#?}\nonly outside: {outside:#?}");
}

fn layout_tag(place: &Place, layout: &str) -> String {
    let index: serde_json::Value =
        serde_json::from_str(&place.read(&format!("{layout}/index.json"))).expect("JSON");
    index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
        .as_str()
        .unwrap_or("latest")
        .to_owned()
}

#[test]
fn cache_mount_and_its_mount_point_are_not_in_the_image() {
    for_each_user(|user| {
        let place = main_place(user);
        place.build(&["-o", "type=oci,dest=image,tar=false"]).ok();
        let names: Vec<String> =
            layers(&place, "image").into_iter().flat_map(|layer| layer.into_keys()).collect();
        assert!(names.iter().any(|name| name == "data/sub/made"), "{names:?}");
        assert!(!names.iter().any(|name| name.starts_with("var")), "{names:?}");
        for made in ["proc", "sys", "dev", "etc"] {
            assert!(!names.iter().any(|name| name.starts_with(made)), "{made} is in {names:?}");
        }
    });
}

/// An entry of a layer's tar.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) owner: (u64, u64),
    pub(crate) mode: u32,
    pub(crate) kind: tar::EntryType,
    pub(crate) link: Option<String>,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

/// Reads the layers of a layout directory with one image, lowest first; names have no slash at either end.
/// Returns the configuration of the one image of a layout.
pub(crate) fn config(place: &Place, layout: &str) -> serde_json::Value {
    let index: serde_json::Value =
        serde_json::from_str(&place.read(&format!("{layout}/index.json"))).expect("JSON");
    let blob = |digest: &serde_json::Value| -> serde_json::Value {
        let hex = digest.as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
        serde_json::from_str(&place.read(&format!("{layout}/blobs/sha256/{hex}"))).expect("JSON")
    };
    blob(&blob(&index["manifests"][0]["digest"])["config"]["digest"])
}

pub(crate) fn layers(place: &Place, layout: &str) -> Vec<BTreeMap<String, Entry>> {
    let blob = |digest: &serde_json::Value| {
        let digest = digest.as_str().expect("a digest");
        place.path(&format!("{layout}/blobs/{}", digest.replace(':', "/")))
    };
    let json = |path| -> serde_json::Value {
        serde_json::from_reader(File::open(path).expect("a blob")).expect("JSON")
    };
    let index = json(place.path(&format!("{layout}/index.json")));
    let manifest = json(blob(&index["manifests"][0]["digest"]));
    let list = manifest["layers"].as_array().expect("layers");
    list.iter()
        .map(|layer| {
            entries(flate2::read::GzDecoder::new(File::open(blob(&layer["digest"])).expect("a blob")))
        })
        .collect()
}

/// Reads a tar.
pub(crate) fn entries(reader: impl std::io::Read) -> BTreeMap<String, Entry> {
    let mut archive = tar::Archive::new(reader);
    let mut map = BTreeMap::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").to_string_lossy().trim_matches('/').to_owned();
        let link = entry.link_name().expect("a link").map(|link| link.to_string_lossy().into_owned());
        let header = entry.header();
        let (uid, gid, mode) = (header.uid(), header.gid(), header.mode());
        let (owner, mode, kind) =
            ((uid.expect("a uid"), gid.expect("a gid")), mode.expect("a mode"), header.entry_type());
        let mut xattrs = BTreeMap::new();
        if let Some(extensions) = entry.pax_extensions().expect("pax") {
            for extension in extensions.flatten() {
                if let Some(name) = extension.key().unwrap_or_default().strip_prefix("SCHILY.xattr.") {
                    xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
                }
            }
        }
        entry.read_to_end(&mut Vec::new()).expect("content");
        map.insert(name, Entry { owner, mode, kind, link, xattrs });
    }
    map
}
