//! Steps that act as several users, and give files away.

use super::{field, same_layers};
use crate::place::Place;

const PASSWD: &str =
    "root:x:0:0::/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\nbob:x:2000:1001::/home/bob:/bin/sh\n";
const GROUP: &str = "root:x:0:\nann:x:1001:\nextra:x:77:ann\n";

fn context(place: &Place, dockerfile: &str) {
    place.file("context/passwd", PASSWD);
    place.file("context/group", GROUP);
    place.base(&format!("COPY passwd group /etc/\n{dockerfile}"));
    for applet in ["mknod", "su", "chgrp", "install", "cpio", "setpriv"] {
        place.link(&format!("context/bin/{applet}"), "busybox");
    }
}

#[test]
fn files_that_a_step_gives_away() {
    let layers = same_layers(&[], |place| {
        context(
            place,
            "RUN mkdir -p /d/e && touch /d/a /d/e/b && ln -s a /d/link && mkfifo /d/p && chown -R ann /d && chown -h bob:extra /d/link && chgrp 77 /d/a && chmod 6755 /d/a\n\
             RUN ln /d/a /d/hard && ln /d/link /d/hard-link && mv /d/e /d/f && mv /d/link /d/moved && chown bob /d/hard\n\
             RUN cp -a /d /copy\n\
             RUN test \"$(stat -c %u:%g /copy/a /copy/moved /copy/f/b | tr '\\n' ' ')\" = '2000:77 2000:77 1000:0 ' && rm -r /copy/f && mkdir /copy/f\n",
        );
    });
    assert_eq!((field(&layers, "copy/moved", "uid"), field(&layers, "d/hard", "uid")), ("2000", "2000"));
}

#[test]
fn nodes_that_a_step_makes() {
    let layers = same_layers(&[], |place| {
        context(place, "RUN mkdir /n && mkfifo -m 640 /n/p && mkdir -m 1777 /n/t && ln -s p /n/l\n");
    });
    assert_eq!(field(&layers, "n/p", "mode"), "640");
}

#[test]
fn files_that_another_user_makes() {
    let layers = same_layers(&[], |place| {
        context(
            place,
            "RUN mkdir -p /home/ann /shared && chown ann /home/ann && chown root:extra /shared && chmod 2777 /shared\n\
             USER ann\n\
             RUN mkdir -p ~/x/y && echo a > ~/x/y/a && ln -s y ~/x/l && ln ~/x/y/a ~/x/hard && mkfifo ~/x/p && ! touch /not-allowed 2>/dev/null && touch /shared/a && mkdir /shared/d && touch /shared/d/b\n\
             RUN id -u > ~/id && id -g >> ~/id && umask 077 && touch ~/private && chmod u+s ~/private\n\
             USER bob:extra\n\
             RUN touch /shared/bob\n\
             USER root\n\
             RUN su ann -c 'touch ~/by-su' && setpriv --reuid=2000 --regid=77 --clear-groups touch /shared/by-setpriv 2>/dev/null || touch /shared/no-setpriv\n",
        );
    });
    assert_eq!((field(&layers, "shared/d/b", "uid"), field(&layers, "shared/d/b", "gid")), ("1000", "77"));
    assert_eq!(field(&layers, "home/ann/by-su", "uid"), "1000");
}

#[test]
fn mounts_with_owners() {
    let layers = same_layers(&["--secret", "id=s,src=secret"], |place| {
        place.file("secret", "a secret value of this case");
        context(
            place,
            "RUN mkdir /out && chmod 777 /out\n\
             USER ann\n\
             RUN --mount=type=cache,target=/c,uid=1000,gid=77,mode=0750 --mount=type=secret,id=s,uid=1000,gid=1001,mode=0400 \\\n\
                 touch /c/f && cp -p /c/f /out/f && stat -c '%a %u:%g' /c /c/f /run/secrets/s > /out/seen && cat /run/secrets/s | wc -c >> /out/seen\n\
             RUN --mount=type=cache,target=/c,uid=1000,gid=77,mode=0750 stat -c '%a %u:%g' /c /c/f > /out/later && echo more >> /c/f\n",
        );
    });
    assert_eq!(
        field(&layers, "out/seen", "content"),
        "\"750 1000:77\\n644 1000:1001\\n400 1000:1001\\n27\\n\""
    );
}
