//! Users and owners where there is a single id: kiln answers for them (docs/decisions/0011-single-id.md). As everybody, since
//! nothing may differ.

use crate::images::layers;
use crate::place::Place;
use crate::user::for_each_user;

const PASSWD: &str = "root::0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n";
const GROUP: &str = "root:x:0:\nann:x:1001:\nextra:x:77:ann\n";

fn place(user: crate::user::User, dockerfile: &str) -> Place {
    let place = Place::new(user);
    place.file("context/passwd", PASSWD);
    place.file("context/group", GROUP);
    for applet in ["su", "mknod", "install", "chgrp"] {
        place.link(&format!("context/bin/{applet}"), "busybox");
    }
    place.base(&format!("COPY passwd group /etc/\n{dockerfile}"));
    place
}

#[test]
fn owners_go_through_steps_stages_and_layers() {
    for_each_user(|user| {
        let place = place(
            user,
            "COPY --chown=5:6 file /copied\n\
             RUN test $(stat -c %u:%g /copied) = 5:6 && mkdir /d && touch /d/f && ln -s f /d/l && chown -R 7:8 /d && chown -h 9:10 /d/l\n\
             RUN test \"$(echo $(stat -c %u:%g /d /d/f /d/l))\" = '7:8 7:8 9:10' && mv /d/l /d/m && chown 0:0 /copied\n\
             RUN test \"$(echo $(stat -c %u:%g /d/m /copied))\" = '9:10 0:0'\n\
             FROM scratch AS last\nCOPY --from=0 /bin /bin\nCOPY --from=0 /d /e\n\
             RUN test \"$(echo $(stat -c %u:%g /e /e/f /e/m))\" = '0:0 7:8 9:10'\n",
        );
        place.file("context/file", "x");
        place.build(&["-o", "type=oci,dest=image,tar=false"]).ok();
        let layers = layers(&place, "image");
        let find =
            |name: &str| layers.iter().rev().find_map(|layer| layer.get(name)).expect("a layer has it");
        assert_eq!((find("e").owner, find("e/f").owner, find("e/m").owner), ((0, 0), (7, 8), (9, 10)));
    });
}

#[test]
fn a_user_works_in_its_own_home() {
    for_each_user(|user| {
        let place = place(
            user,
            "RUN mkdir -p /home/ann /shared && chown ann:ann /home/ann && chgrp extra /shared && chmod 2775 /shared\n\
             USER ann\nWORKDIR /home/ann\n\
             RUN echo x > f && mkdir -p d/e && ln -s f l && id && test $HOME = /home/ann && touch /shared/by-ann && ! touch /etc/no\n\
             USER root\n\
             RUN su ann -c 'touch by-su' && id -u\n\
             RUN test \"$(echo $(stat -c %u:%g f d/e l by-su /shared/by-ann))\" = '1000:1001 1000:1001 1000:1001 1000:1001 1000:77'\n",
        );
        place
            .build(&["-o", "type=oci,dest=image,tar=false"])
            .ok()
            .says(&["uid=1000(ann) gid=1001(ann)", "77(extra)"]);
        let layers = layers(&place, "image");
        let find =
            |name: &str| layers.iter().rev().find_map(|layer| layer.get(name)).expect("a layer has it");
        assert_eq!((find("home/ann/l").owner, find("shared/by-ann").owner), ((1000, 1001), (1000, 77)));
    });
}
