use libc::{SYS_clone3, SYS_keyctl, SYS_mount, SYS_openat, SYS_ptrace, SYS_read, SYS_socket, SYS_unshare};

use kiln_core::DirectoryOrder;

use super::*;

const EPERM: u32 = SECCOMP_RET_ERRNO | 1;
const ENOSYS: u32 = SECCOMP_RET_ERRNO | 38;
const MACHINES: [[Abi; 2]; 2] = [[AMD64, I386], [ARM64, ARM]];

/// What the kernel's machine would answer; it checks programs as the kernel does: forward jumps inside the program.
fn evaluate(program: &[sock_filter], abi: Abi, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(abi.audit.to_le_bytes());
    data.extend(0xdead_beef_u64.to_le_bytes());
    data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let code = u32::from(code);
        let branch = |taken: bool| usize::from(if taken { jt } else { jf });
        match code & 7 {
            BPF_LD => {
                let offset = k as usize;
                accumulator = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            BPF_JMP => {
                at += match code & 0xf0 {
                    BPF_JA => k as usize,
                    BPF_JEQ => branch(accumulator == k),
                    BPF_JGE => branch(accumulator >= k),
                    BPF_JSET => branch(accumulator & k != 0),
                    other => panic!("jump {other:#x}"),
                }
            }
            BPF_RET => return k,
            other => panic!("class {other:#x}"),
        }
    }
}

fn answer_to(machine: [Abi; 2], abi: Abi, number: u32, arguments: [u64; 6]) -> u32 {
    evaluate(&program(&machine, &Names::new()), abi, number, arguments)
}

#[test]
fn each_row_answers_on_each_machine() {
    for machine in MACHINES {
        let program = program(&machine, &Names::new());
        assert!(program.len() < 4096, "the kernel's limit: {}", program.len());
        for abi in machine {
            let rows = rows(abi, &Names::new());
            assert!(rows.len() > 250, "{abi:?}: {}", rows.len());
            assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0 || pair[0].1 == pair[1].1), "{abi:?}");
            for (number, action) in &rows {
                let answer = evaluate(&program, abi, *number, [0; 6]);
                let expected = match action {
                    // Zeros are what each of them allows.
                    Action::Allow | Action::If(..) => SECCOMP_RET_ALLOW,
                    Action::Errno(errno) => SECCOMP_RET_ERRNO | u32::from(*errno),
                    Action::Notify(_) => panic!("{abi:?} {number}"),
                };
                assert_eq!(answer, expected, "{abi:?} {number}");
            }
            let newest = rows.iter().map(|row| row.0).filter(|number| *number < PRIVATE).max().unwrap();
            for number in (0..=newest + 1000).chain([0x4000_0000, 0x4000_0000 + 59, u32::MAX]) {
                if rows.iter().all(|row| row.0 != number) {
                    let expected = if number <= newest { EPERM } else { ENOSYS };
                    assert_eq!(evaluate(&program, abi, number, [0; 6]), expected, "{abi:?} {number}");
                }
            }
        }
        // Nothing else is spoken here.
        let stranger = Abi { audit: 0x8000_0016, column: 1 };
        assert_eq!(evaluate(&program, stranger, 0, [0; 6]), SECCOMP_RET_KILL_PROCESS);
    }
}

#[test]
fn the_table_can_be_read() {
    let mut conditional = Vec::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(words.len() >= 5, "{line}");
        assert!(words[1..5].iter().all(|word| *word == "-" || parse_number(word).is_some()), "{line}");
        assert_ne!(parse_action(&words[5..]), REFUSED, "{line}");
        if words.len() > 5 {
            conditional.push(words[0]);
        }
    }
    assert_eq!(conditional, ["clone", "clone3", "personality", "socket"]);
    assert_eq!(parse_action(&["0=x"]), REFUSED);
    assert_eq!(parse_action(&["0=1", "1=1"]), REFUSED);
    assert_eq!(parse_action(&["errno=x"]), REFUSED);
}

#[test]
fn conditions_look_at_arguments() {
    for (machine, socket, personality, clone) in
        [(MACHINES[0], 41, 135, 56), (MACHINES[1], 198, 92, 220), ([I386, AMD64], 359, 136, 120)]
    {
        let ask = |number, first: u64| answer_to(machine, machine[0], number, [first, u64::MAX, 0, 0, 0, 0]);
        // unix, inet, inet6, netlink, packet; alg, vsock, one of tomorrow's, one that is cut to inet.
        for (family, allowed) in [
            (1, true),
            (2, true),
            (10, true),
            (16, true),
            (17, true),
            (12, false),
            (38, false),
            (40, false),
            (46, false),
            (1 << 32 | 2, false),
        ] {
            assert_eq!(ask(socket, family) == SECCOMP_RET_ALLOW, allowed, "socket({family})");
        }
        for (persona, allowed) in
            [(0, true), (8, true), (0x20008, true), (0xffff_ffff, true), (0x40000, false)]
        {
            assert_eq!(ask(personality, persona) == SECCOMP_RET_ALLOW, allowed, "personality({persona:#x})");
        }
        // fork, a thread, vfork; each namespace.
        for flags in [libc::SIGCHLD, 0x3d_0f00, libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD] {
            assert_eq!(ask(clone, u64::from(flags.cast_unsigned())), SECCOMP_RET_ALLOW);
        }
        for flag in [
            libc::CLONE_NEWNS,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWCGROUP,
        ] {
            assert_eq!(ask(clone, u64::from((flag | libc::SIGCHLD).cast_unsigned())), EPERM, "{flag:#x}");
        }
    }
}

/// A build is asked about what it was always asked about; only who wants another order, about lists of directories.
#[test]
fn lists_of_directories_are_asked_about_when_wanted_only() {
    const NOTIFY: u32 = SECCOMP_RET_USER_NOTIF;
    let order = Some(DirectoryOrder::Reversed);
    let filters = Filters::new();
    for (ids, order, stat, getdents) in [
        (false, None, SECCOMP_RET_ALLOW, SECCOMP_RET_ALLOW),
        (true, None, NOTIFY, SECCOMP_RET_ALLOW),
        (false, order, SECCOMP_RET_ALLOW, NOTIFY),
        (true, order, NOTIFY, NOTIFY),
    ] {
        let filter = filters.choose(Answers { ids, order });
        let ask = |abi: Abi, name: &str| {
            let line = TABLE.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
            let number = parse_number(line.split(' ').nth(abi.column).unwrap());
            number.map(|number| evaluate(&filter, abi, number, [0; 6]))
        };
        for abi in HOST {
            assert_eq!(ask(abi, "statx"), Some(stat), "{abi:?} {ids} {order:?}");
            assert_eq!(ask(abi, "getdents64"), Some(getdents), "{abi:?} {ids} {order:?}");
            assert!(ask(abi, "getdents").is_none_or(|answer| answer == getdents), "{abi:?} {ids} {order:?}");
            assert_eq!(ask(abi, "read"), Some(SECCOMP_RET_ALLOW), "{abi:?} {ids} {order:?}");
        }
    }
}

#[test]
fn numbers_are_this_machines() {
    let ask = |number: libc::c_long, first: i32| {
        let arguments = [u64::from(first.cast_unsigned()), 0, 0, 0, 0, 0];
        evaluate(
            &Filters::new().choose(Answers::default()),
            HOST[0],
            u32::try_from(number).unwrap(),
            arguments,
        )
    };
    for number in [SYS_read, SYS_openat, SYS_ptrace, libc::SYS_execve, libc::SYS_rseq, libc::SYS_statx] {
        assert_eq!(ask(number, 0), SECCOMP_RET_ALLOW, "{number}");
    }
    for number in
        [SYS_mount, SYS_unshare, SYS_keyctl, libc::SYS_bpf, libc::SYS_setns, libc::SYS_io_uring_setup]
    {
        assert_eq!(ask(number, 0), EPERM, "{number}");
    }
    assert_eq!(ask(SYS_clone3, 0), ENOSYS);
    assert_eq!(ask(SYS_socket, libc::AF_INET), SECCOMP_RET_ALLOW);
    assert_eq!(ask(SYS_socket, libc::AF_VSOCK), EPERM);
}
