//! What is wrong gets a message that helps, the right exit code, and leaves nothing half-made.

use kiln_testkit::registry::FakeRegistry;

use crate::place::{Place, Ran};
use crate::small::Small;
use crate::user::{User, for_each_user};

#[test]
fn a_dockerfile_error_names_file_line_and_column() {
    // Each: the lines behind FROM and COPY, the place, words of the message.
    let rows: &[(&str, &str, &[&str])] = &[
        ("RUNN echo x\n", "Dockerfile:3:1", &["RUNN", "RUN"]),
        ("ADD --checksum=sha256:0 a /b\n", "Dockerfile:3:", &["--checksum", "URLs"]),
        ("HEALTHCHECK --interval=30 CMD true\n", "Dockerfile:3:", &["--interval=30", "30s"]),
        ("RUN --security=insecure true\n", "Dockerfile:3:", &["--allow security.insecure"]),
        ("RUN --device=a.com/b=c true\n", "Dockerfile:3:", &["--device", "CDI"]),
        ("RUN --mount=type=cache echo\n", "Dockerfile:3:", &["target"]),
        ("RUN --mount=type=cash,target=/c echo\n", "Dockerfile:3:", &["cash", "cache"]),
        ("COPY --form=x a b\n", "Dockerfile:3:", &["form", "from"]),
        ("COPY --from=5 a b\n", "Dockerfile:3:", &["5"]),
    ];
    for_each_user(|user| {
        let place = Place::new(user);
        place.file("context/a", "x");
        for (text, at, words) in rows {
            place.base(text);
            place.build(&[]).code(2).says(&[at]).says(words);
        }
    });
}

#[test]
fn a_missing_source_says_what_is_nearby_or_excluded() {
    for_each_user(|user| {
        let place = Place::with(user, "COPY requirement.txt /\n");
        place.file("context/requirements.txt", "x");
        place.build(&[]).code(2).says(&["Dockerfile:3", "requirement.txt", "requirements.txt"]);
        place.base("COPY notes.md /\n");
        place.file("context/notes.md", "x");
        place.file("context/.dockerignore", "# all notes\n*.md\n");
        place.build(&[]).code(2).says(&["Dockerfile:3", "notes.md", "line 2 of .dockerignore"]);
        place.base("RUN --mount=type=bind,source=nothing,target=/n true\n");
        place.build(&[]).code(2).says(&["Dockerfile:3", "nothing"]);
        place.fsck();
    });
}

#[test]
fn usage_errors_are_told_from_failures() {
    for_each_user(|user| {
        let place = Place::with(user, "");
        place.build(&["--no-such-flag"]).code(2).says(&["--no-such-flag"]);
        place.build(&["--target", "nothing"]).code(2).says(&["nothing"]);
        place.build(&["-t", "Not A Name"]).code(2).says(&["Not A Name"]);
        place.build(&["-o", "type=iso"]).code(2).says(&["iso", "oci"]);
        place.build(&["-f", "context/nothing"]).code(2).says(&["context/nothing"]);
        place.kiln(&["build", "context/Dockerfile"]).code(2).says(&["neither a directory nor a tar"]);
        place.kiln(&["build", "nothing"]).code(2).says(&["nothing", "does not exist"]);
        place.kiln(&["run", "127.0.0.1:1/nothing"]).code(125).says(&["127.0.0.1:1"]);
        place.kiln(&["rmi", "nothing"]).code(2).says(&["nothing"]);
        place.directory("empty");
        place.kiln(&["build", "empty"]).code(2).says(&["empty/Dockerfile"]);
        place.file("empty/app.Dockerfile", "FROM scratch\n");
        place.kiln(&["build", "empty"]).code(2).says(&["app.Dockerfile", "--file"]);
    });
}

#[test]
fn a_failing_step_shows_its_lines_and_its_last_words() {
    for_each_user(|user| {
        let place =
            Place::with(user, "ENV x=1\nRUN seq 1 40 && echo last words && exit 17\nRUN echo never\n");
        let ran = place.build(&["-t", "broken"]).code(1);
        let ran = ran.says(&["Dockerfile:4", ">>> RUN seq", "last words", "17"]).lacks(&[" never\n#"]);
        let tail = ran.stderr.rsplit("------\n > ").next().expect("a tail");
        assert!(tail.contains("\n40\nlast words\n") && !tail.contains("\n3\n"), "{ran}");
        assert!(!place.kiln(&["images"]).ok().out().contains("broken"));
        // What went before is kept.
        let ran = place.build(&[]).code(1);
        assert_eq!(ran.count("CACHED"), 1, "{ran}");
        place.base("RUN kill -9 $$\n");
        place.build(&[]).code(1).says(&["signal 9"]);
        place.fsck();
        assert_eq!(place.half_made(), [] as [String; 0]);
    });
}

#[test]
fn a_program_or_user_that_is_not_there_is_named() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN [\"/no/such/program\"]\n");
        place.build(&[]).code(1).says(&["/no/such/program", "Dockerfile:3"]);
        place.base("RUN no-such-command\n");
        place.build(&[]).code(1).says(&[
            "no-such-command",
            "not found",
            "hint: the image has no such program",
        ]);
        place.base("USER nobody-here\nRUN true\n");
        let ran = place.build(&[]).says(&["nobody-here", "Dockerfile:"]);
        assert!(matches!(ran.code, Some(1 | 2)), "{ran}");
        place.dockerfile("FROM scratch\nRUN echo x\n");
        place.build(&[]).code(1).says(&["/bin/sh"]);
    });
}

#[test]
fn a_registry_that_does_not_answer_is_no_fault_of_the_dockerfile() {
    for_each_user(|user| {
        let place = Place::new(user);
        // Port 1 of this machine is closed.
        place.dockerfile("FROM 127.0.0.1:1/some/image:tag\n");
        place.build(&[]).code(4).says(&["127.0.0.1:1/some/image:tag", "refused"]);
        let registry = FakeRegistry::start();
        registry.put("app", "known", &crate::place::text_image(&[("hello", "x")]));
        place.dockerfile(&format!("FROM {}/app:unknown\n", registry.host()));
        place.build(&[]).code(4).says(&["app:unknown", "Dockerfile:1"]);
        place.fsck();
        assert_eq!(place.half_made(), [] as [String; 0]);
    });
}

#[test]
fn a_store_that_cannot_be_used_is_the_machines_fault() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN echo x > /x\n");
        place.build(&[]).ok();
        place.file("store/format", "999\n");
        place.build(&[]).code(3).says(&["999", "newer"]);
        if matches!(user, User::Sub | User::Plain) {
            let mut command = place.build_command("closed/store", &[]);
            std::fs::create_dir(place.path("closed")).expect("a directory of root's");
            Ran::of(&mut command).code(3).says(&["closed", "ermission denied"]);
        }
        place.file("a-file", "");
        Ran::of(&mut place.build_command("a-file", &[])).code(3).says(&["a-file"]);
    });
}

#[test]
fn a_full_disk_or_a_read_only_one_is_said_and_leaves_nothing_half_made() {
    for_each_user(|user| {
        if user == User::Caller {
            return;
        }
        let place = Place::with(user, "COPY large /large\n");
        place.file("context/large", &"0123456789abcdef".repeat(400_000));
        let Some(small) = Small::mount(&place, "size=6m") else { return };
        let build = |name: &str| Ran::of(&mut place.build_command("small/store", &["-t", name]));
        build("full").code(3).says(&["no space left", "hint: make room"]);
        // The same in a step is the step's failure; the store goes on.
        place.base("RUN dd if=/dev/zero of=/zeros bs=1M count=8\n");
        build("full").code(1).says(&["No space left"]);
        place.base("RUN echo small > /small\n");
        build("fits").ok();
        let fsck = Ran::of(&mut place.command_on("small/store", &["debug", "fsck"])).ok();
        assert!(fsck.stderr.contains("0 problems"), "{fsck}");
        let images = Ran::of(&mut place.command_on("small/store", &["images"])).ok().out();
        assert!(images.contains("fits") && !images.contains("full"), "{images}");
        small.remount("ro");
        Ran::of(&mut place.build_command("small/store", &["--no-cache"])).code(3).says(&["ead-only"]);
    });
}
