//! Calls of 32-bit programs, where there is a single id: numbers, ids and results of their own.
//!
//! The programs are made here. They are ELF files of 64 bits that call the kernel as those of 32 do, by `int 0x80`: for the kernel,
//! and for whoever answers in its place, such a call is a 32-bit program's (syscall(2)).
#![cfg(target_arch = "x86_64")]

use std::os::unix::fs::PermissionsExt as _;

use kiln_core::RunSpec;

use crate::notify::single;
use crate::support::{Place, skip};

/// Where a program is in memory; what it writes comes behind it.
const BASE: u32 = 0x40_0000;
const HEAD: u32 = 120;
pub(crate) const TEXT: u32 = BASE + 0x800;
pub(crate) const MEMORY: u32 = BASE + 0x1000;

/// Machine code, as it is put together.
#[derive(Default)]
pub(crate) struct Code(Vec<u8>);

/// What is put into a register before a call.
#[derive(Clone, Copy)]
pub(crate) enum Value {
    Number(u32),
    /// What `keep` kept.
    Kept,
}
use Value::{Kept, Number};

impl Code {
    /// Calls the kernel; the result is in EAX.
    pub(crate) fn call(mut self, number: u32, arguments: &[Value]) -> Self {
        // mov REG, VALUE; mov REG, ebp: for ebx, ecx, edx, esi
        for (value, (immediate, from_kept)) in
            arguments.iter().zip([(0xbb, 0xeb), (0xb9, 0xe9), (0xba, 0xea), (0xbe, 0xee)])
        {
            match value {
                Number(value) => self = self.with(immediate, *value),
                Kept => self.0.extend([0x89, from_kept]),
            }
        }
        self = self.with(0xb8, number);
        self.0.extend([0xcd, 0x80]);
        self
    }

    fn with(mut self, opcode: u8, value: u32) -> Self {
        self.0.push(opcode);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// mov ebp, eax
    pub(crate) fn keep(mut self) -> Self {
        self.0.extend([0x89, 0xc5]);
        self
    }

    /// mov [address], eax
    pub(crate) fn store(mut self, address: u32) -> Self {
        self.0.extend([0x89, 0x04, 0x25]);
        self.0.extend(address.to_le_bytes());
        self
    }

    /// An ELF file of it and of a text.
    pub(crate) fn program(mut self, text: &str) -> Vec<u8> {
        self.0.resize((TEXT - BASE - HEAD) as usize, 0x90);
        self.0.extend(text.as_bytes());
        self.0.push(0);
        let size = u64::from(HEAD) + self.0.len() as u64;
        let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        for value in [u64::from(BASE + HEAD), 64, 0] {
            elf.extend(value.to_le_bytes());
        }
        elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        // One segment, to read, write and execute.
        elf.extend([1, 0, 0, 0, 7, 0, 0, 0]);
        for value in [0, u64::from(BASE), u64::from(BASE), size, 0x4000, 0x1000] {
            elf.extend(value.to_le_bytes());
        }
        elf.extend(self.0);
        elf
    }
}

/// Puts a program into the root and runs a script; none where the kernel knows no such calls.
fn run(place: &Place, program: &[u8], script: &str) -> Option<String> {
    run_spec(place, program, &place.spec(script))
}

pub(crate) fn run_spec(place: &Place, program: &[u8], spec: &RunSpec) -> Option<String> {
    std::fs::write(place.path("root/bin/old"), program).unwrap();
    std::fs::set_permissions(place.path("root/bin/old"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let ran = place.run(spec);
    if ran.stdout.contains("139") || ran.stderr.contains("Segmentation") {
        skip("32-bit system calls: this kernel has none");
        return None;
    }
    Some(ran.ok().to_owned())
}

#[test]
fn ids_of_16_bits_are_answered() {
    for place in single() {
        // setgid(3); chown("/tmp", 5, 6) of 16 bits; getgid() of 16 bits, getuid32(): their results are the output.
        let program = Code::default()
            .call(46, &[Number(3)])
            .store(MEMORY)
            .call(182, &[Number(TEXT), Number(5), Number(6)])
            .store(MEMORY + 4)
            .call(47, &[])
            .store(MEMORY + 8)
            .call(199, &[])
            .store(MEMORY + 12)
            .call(4, &[Number(1), Number(MEMORY), Number(16)])
            .call(1, &[Number(0)])
            .program("/tmp");
        let script = "/bin/old > /one; stat -c %u:%g /tmp; busybox su ann -c /bin/old > /two; echo $?";
        if run(&place, &program, script).is_none() {
            return;
        }
        let written = |name: &str| -> Vec<i32> {
            let bytes = std::fs::read(place.path(name)).unwrap();
            bytes.chunks_exact(4).map(|word| i32::from_le_bytes(word.try_into().unwrap())).collect()
        };
        assert_eq!(written("upper/one"), [0, 0, 3, 0]);
        // EPERM, and her own.
        assert_eq!(written("upper/two"), [-1, -1, 1001, 1000]);
    }
}

/// One of stat's calls for them: its number, and where its result has mode, ids, device and time of change.
struct Shape {
    call: u32,
    mode: usize,
    ids: [usize; 2],
    /// Bytes of each id.
    width: usize,
    device: usize,
    changed: usize,
}

/// `struct stat` and `struct stat64` of arch/x86/include/uapi/asm/stat.h.
const fn old(call: u32) -> Shape {
    Shape { call, mode: 8, ids: [12, 14], width: 2, device: 16, changed: 48 }
}
const fn large(call: u32) -> Shape {
    Shape { call, mode: 16, ids: [24, 28], width: 4, device: 32, changed: 80 }
}

/// Of a result, with room for more than any has.
const RESULT: u32 = 0x100;
const SHAPES: [Shape; 7] = [old(106), old(107), old(108), large(195), large(196), large(197), large(300)];

/// Asks all of stat's family about a file, and compares with what the kernel said before there was anything to add.
#[test]
fn what_stat_says_has_their_shape() {
    let mut code = Code::default().call(5, &[Number(TEXT), Number(0), Number(0)]).keep();
    for (at, shape) in (MEMORY..).step_by(RESULT as usize).zip(SHAPES) {
        let (at, path) = (Number(at), Number(TEXT));
        code = match shape.call {
            108 | 197 => code.call(shape.call, &[Kept, at]),
            300 => code.call(300, &[Number(libc::AT_FDCWD.cast_unsigned()), path, at, Number(0)]),
            call => code.call(call, &[path, at]),
        };
        let Number(at) = at else { unreachable!() };
        code = code.store(at + RESULT - 4);
    }
    let length = RESULT * SHAPES.len() as u32;
    let program =
        code.call(4, &[Number(1), Number(MEMORY), Number(length)]).call(1, &[Number(0)]).program("/f");
    for place in single() {
        let script = "echo text > f; /bin/old > /plain; chown 5:70000 f; /bin/old > /owned; rm f; mknod -m 640 f b 8 17; /bin/old > /device";
        if run(&place, &program, script).is_none() {
            return;
        }
        let written = |name: &str| {
            let all = std::fs::read(place.path(name)).unwrap();
            all.chunks_exact(RESULT as usize).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        let (plain, owned, device) =
            (written("upper/plain"), written("upper/owned"), written("upper/device"));
        assert_eq!([plain.len(), owned.len(), device.len()], [SHAPES.len(); 3]);
        for (number, shape) in SHAPES.iter().enumerate() {
            let call = shape.call;
            let (mut expected, mut owned, device) =
                (plain[number].clone(), owned[number].clone(), &device[number]);
            assert_eq!(expected[RESULT as usize - 4..], [0; 4], "{call} fails");
            let group: u32 = if shape.width == 2 { 65_534 } else { 70_000 };
            for (at, id) in shape.ids.into_iter().zip([5, group]) {
                assert_eq!(expected[at..at + shape.width], [0; 4][..shape.width], "{call}");
                expected[at..at + shape.width].copy_from_slice(&id.to_le_bytes()[..shape.width]);
            }
            for text in [&mut expected, &mut owned] {
                text[shape.changed..shape.changed + 8].fill(0);
            }
            assert_eq!(owned, expected, "{call}");
            let mode = u16::from_le_bytes([device[shape.mode], device[shape.mode + 1]]);
            assert_eq!((mode, &device[shape.device..shape.device + 2]), (0o60640, &[17, 8][..]), "{call}");
        }
    }
}
