//! Steps in a chroot that lay traps for kiln: links where it puts things, takes them out again, and looks for caches. What a step
//! does by itself is not kept from it there (docs/chroot.md); but nothing of it may make kiln write elsewhere, or lose a cache.

use crate::escape::{Host, UPWARDS};
use crate::place::Place;
use crate::user::{User, skip, users};

/// What lies in wait, and a Dockerfile behind the base; `@` is the host's directory, `^` a way up to it.
const TRAPS: &[(&str, &str)] = &[
    (
        "places behind links that an earlier step made",
        "RUN ln -s @ /l && ln -s ^ /u\n\
         RUN --mount=type=cache,target=/l/empty --mount=type=tmpfs,target=/u/dir/empty --mount=type=secret,id=s,target=/l/blank \
             --mount=type=bind,source=bin,target=/u/new echo x > /l/empty/f; echo x > /u/dir/empty/f; cat /l/canary; true\n",
    ),
    (
        "links in a cache, behind which others are put",
        "RUN --mount=type=cache,target=/c ln -sf @ /c/a; ln -sf ^ /c/u\n\
         RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/c/a/empty --mount=type=cache,id=other,target=/c/u/dir \
             --mount=type=secret,id=s,target=/c/a/blank echo x > /c/a/empty/f; cat /c/a/canary; echo x > /c/u/dir/f; true\n",
    ),
    (
        "the directory of a place becomes a link",
        "RUN --mount=type=cache,target=/d/empty --mount=type=secret,id=s,target=/d/blank echo x > /d/empty/kept; mv /d /gone; ln -s @ /d\n",
    ),
    (
        "all that was put becomes links",
        "RUN --mount=type=cache,target=/c --mount=type=secret,id=s rm -rf /c /run /dev /proc /sys /etc; \
             for d in c run dev proc sys etc; do ln -s @ /$d; done\n",
    ),
    (
        "files that were put become directories, and directories files",
        "RUN --mount=type=cache,target=/c --mount=type=secret,id=s,target=/s rm -rf /c /s /etc/hosts; echo x > /c; mkdir -p /s /etc/hosts; \
             ln -s @/canary /s/f; ln -s @/dir /etc/hosts/d\n",
    ),
    (
        "one cache in another, and a link where it was",
        "RUN --mount=type=cache,id=one,target=/c --mount=type=cache,id=two,target=/d mv /c /d/c; ln -s @ /c; ln -s ^ /d/c/up\n\
         RUN --mount=type=cache,id=one,target=/c --mount=type=cache,id=two,target=/d rm -rf /c/* /d/*\n",
    ),
    (
        "a working directory and a user's file that are links",
        "RUN mkdir -p /etc; ln -sf @/canary /etc/passwd; ln -s ^ /w\nWORKDIR /w/new\nRUN cat ../canary; echo x > f; true\n",
    ),
    (
        "a failed step's traps",
        "RUN --mount=type=cache,target=/c mv /c /e; ln -s @ /c; ln -s ^ /e/up; false\n",
    ),
];

#[test]
fn kiln_is_not_led_astray() {
    if !users().contains(&User::Root) {
        return skip("a chroot: the tests do not run as root");
    }
    let place = Place::new(User::Root);
    let host = Host::new(&place);
    place.file("secret", "a secret of this case");
    for (what, dockerfile) in TRAPS {
        let up = format!("{UPWARDS}{}", host.text());
        place.base(&dockerfile.replace('@', host.text()).replace('^', &up));
        let args = ["--isolation=chroot", "--no-cache", "--secret", "id=s,src=secret"];
        let ran = place.build(&args);
        host.is_untouched(what, &ran);
        assert!(matches!(ran.code, Some(0..=3)), "{what}: {ran}");
        assert_eq!(place.half_made(), [] as [String; 0], "{what}: {ran}");
        // Taken up again, whatever it looks like now.
        place.base("RUN --mount=type=cache,target=/c --mount=type=cache,id=one,target=/d ls /c /d\n");
        let ran = place.build(&["--isolation=chroot", "--no-cache"]).ok();
        host.is_untouched(what, &ran);
        place.fsck();
    }
    // What a cache held before the traps is there still.
    place.base("RUN --mount=type=cache,target=/d/empty cat /d/empty/kept\n");
    place.build(&["--isolation=chroot", "--no-cache"]).ok().prints(&["x"]);
    place.is_quiet();
}

#[test]
fn nothing_of_the_callers_is_inherited() {
    if !users().contains(&User::Root) {
        return skip("a chroot: the tests do not run as root");
    }
    let place = Place::new(User::Root);
    let host = Host::new(&place);
    // Without a /proc a shell tells what is open by using it.
    place.base(
        "RUN for n in 3 4 5 6 7 8 9; do (eval \"exec 1>&$n\") 2>/dev/null && echo out $n; (eval \"cat <&$n\") 2>/dev/null; done; \
             env | sort; umask; true\n",
    );
    let h = host.text();
    let script = format!(
        "exec 3<{h} 4<{h}/canary 5<>{h}/blank 7</ 8<{h}/canary; umask 077; LEAKED=1 exec ./kiln --isolation=chroot build --progress=plain context"
    );
    let ran = crate::place::Ran::of(&mut place.as_user("bash", "store", &["-c", &script])).ok();
    host.is_untouched("descriptors", &ran);
    ran.prints(&["0022"]).lacks(&["out 3", "out 4", "out 5", "out 7", "out 8", "LEAKED=1", "KILN_"]);
}
