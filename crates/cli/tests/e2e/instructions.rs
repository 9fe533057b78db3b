//! What instructions do to steps and to the configuration.

use std::process::Command;

use kiln_testkit::tools::{run, tool};
use serde_json::{Value, json};

use crate::place::Place;
use crate::user::for_each_user;

fn config_of(place: &Place, source: &str) -> Option<Value> {
    let mut skopeo: Command = tool("skopeo")?;
    skopeo.current_dir(place.path("")).args(["inspect", "--config", source]);
    Some(serde_json::from_str(&run(&mut skopeo)).expect("skopeo writes JSON"))
}

#[test]
fn the_configuration_says_what_the_instructions_said() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "ENV A=1 B=\"two words\"\nENV PATH=/opt/bin:$PATH\nLABEL one=1 \"two words\"='x y'\nEXPOSE 80 53/udp\nVOLUME /data /logs\n\
             STOPSIGNAL SIGQUIT\nUSER 12:13\nWORKDIR /srv\nWORKDIR app\nSHELL [\"/bin/sh\", \"-e\", \"-c\"]\n\
             ENTRYPOINT [\"/bin/echo\"]\nCMD echo $A\nMAINTAINER me\n",
        );
        place.build(&["--label", "three=3", "-o", "type=oci,dest=image.tar"]).ok();
        let Some(got) = config_of(&place, "oci-archive:image.tar") else { return };
        let config = &got["config"];
        assert_eq!(
            config["Env"],
            json!([
                "PATH=/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "A=1",
                "B=two words"
            ])
        );
        assert_eq!(config["Labels"], json!({"one": "1", "two words": "x y", "three": "3"}));
        assert_eq!(config["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}}));
        assert_eq!(config["Volumes"], json!({"/data": {}, "/logs": {}}));
        assert_eq!(config["StopSignal"], "SIGQUIT");
        assert_eq!(config["User"], "12:13");
        assert_eq!(config["WorkingDir"], "/srv/app");
        assert_eq!(config["Entrypoint"], json!(["/bin/echo"]));
        assert_eq!(config["Cmd"], json!(["/bin/sh", "-e", "-c", "echo $A"]));
        assert_eq!(got["author"], "me");
        assert_eq!((&got["os"], &got["created"]), (&json!("linux"), &json!("2001-09-09T01:46:40Z")));
        let layers = got["rootfs"]["diff_ids"].as_array().expect("diff ids").len();
        let empty = |h: &&Value| h["empty_layer"] != json!(true);
        assert_eq!(got["history"].as_array().expect("history").iter().filter(empty).count(), layers);
    });
}

#[test]
fn arguments_come_from_the_command_line_and_defaults() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.dockerfile(
            "ARG global=g\nFROM scratch\nARG global\nARG a=1\nARG b\nARG TARGETARCH\nCOPY bin /bin\nENV from=$a-$b\n\
             RUN echo \"[$global $a $b $from $TARGETARCH]\"\n",
        );
        let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        place.build(&[]).ok().says(&[&format!("[g 1  1- {arch}]")]);
        place
            .build(&["--build-arg", "b=2", "--build-arg", "global=h"])
            .ok()
            .says(&[&format!("[h 1 2 1-2 {arch}]")]);
        let mut command = place.build_command("store", &["--build-arg", "b"]);
        crate::place::Ran::of(command.env("b", "from-env")).ok().says(&["[g 1 from-env 1-from-env"]);
    });
}

#[test]
fn user_names_come_from_the_image() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.file("context/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n");
        place.file("context/group", "root:x:0:\nann:x:1001:\nextra:x:77:ann\n");
        place.base("COPY passwd group /etc/\nUSER ann\nRUN echo \"$(id -u):$(id -g) $(id -G) $HOME\"\nUSER 5:77\nRUN echo \"$(id -u):$(id -g)\"\n");
        let ran = place.build(&[]);
        if user.has_range() {
            ran.ok().prints(&["1000:1001 1001 77 /home/ann", "5:77"]);
        }
    });
}

#[test]
fn a_working_directory_is_made_and_used() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "WORKDIR /a/b\nRUN test $(pwd) = /a/b && touch here\nWORKDIR c\nRUN test $(pwd) = /a/b/c && test -e ../here\n\
             ENV where=/x\nWORKDIR $where/y\nRUN test $(pwd) = /x/y && test $(stat -c %a:%u:%g .) = 755:0:0\nCOPY file .\nRUN cat /x/y/file\n",
        );
        place.file("context/file", "x");
        place.build(&[]).ok();
    });
}

#[test]
fn shell_and_exec_forms_run_what_they_say() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN [\"/bin/echo\", \"$HOME is not expanded\"]\nSHELL [\"/bin/sh\", \"-x\", \"-c\"]\nRUN echo traced\nRUN [\"echo\", \"found in PATH\"]\n",
        );
        place.build(&[]).ok().prints(&["$HOME is not expanded", "+ echo traced", "found in PATH"]);
    });
}
