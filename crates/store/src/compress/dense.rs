//! Bytes that deflate does not make smaller: pictures, archives, wheels, what is compressed or encrypted already. It spends two to five
//! times as long on them as on text before it gives them back as they were (docs/decisions/0042).

use flate2::{Compress, Compression, FlushCompress};

/// Bytes of a block that is looked at at least. Smaller ones cost little, and a few samples of them would say little.
const LEAST: usize = 256 << 10;
/// Places of a block that are looked at, and bytes at each.
const PLACES: usize = 16;
const SAMPLE: usize = 4 << 10;

/// Whether samples of a block become hardly smaller, by less than 3 %. A function of the bytes alone, as it decides what they become.
///
/// What gets smaller only by repeats that no sample sees is taken to be dense as well. Text is told by counting its bytes, which costs
/// nothing beside deflate; only what looks random is deflated to see.
pub(super) fn is_dense(block: &[u8]) -> bool {
    if block.len() < LEAST {
        return false;
    }
    let step = block.len() / PLACES;
    let sample: Vec<u8> =
        block.chunks_exact(step).take(PLACES).flat_map(|part| &part[..SAMPLE]).copied().collect();
    looks_random(&sample) && resists(&sample)
}

/// Whether all bytes are about as frequent: two that are picked are equal by a chance below 1 in 208, which is 1 in 256 for random ones, and
/// what 7.7 bits for a byte give.
fn looks_random(sample: &[u8]) -> bool {
    let mut counts = [0_u64; 256];
    for &byte in sample {
        counts[usize::from(byte)] += 1;
    }
    let equal: u64 = counts.iter().map(|count| count * count).sum();
    let all = sample.len() as u64;
    equal * 208 < all * all
}

fn resists(sample: &[u8]) -> bool {
    let mut packed = Vec::with_capacity(sample.len() + sample.len() / 8 + 64);
    let mut compress = Compress::new(Compression::new(1), false);
    let done = compress.compress_vec(sample, &mut packed, FlushCompress::Finish);
    // What does not fit has not become smaller.
    done.is_err() || packed.len() >= sample.len() / 100 * 97
}

#[cfg(test)]
mod tests {
    use kiln_testkit::random::Random;

    use super::is_dense;

    #[test]
    fn what_is_dense() {
        let mib = 1 << 20;
        let noise = Random(1).bytes(mib);
        let text: Vec<u8> = b"import kiln\n".iter().cycle().take(mib).copied().collect();
        let ramp: Vec<u8> = (0..mib).map(|at| at as u8).collect();
        // Seven bits of eight: a text that is encrypted badly.
        let letters: Vec<u8> = noise.iter().map(|byte| byte & 0x7f).collect();
        let mut mixed = noise.clone();
        mixed[..mib / 8].copy_from_slice(&text[..mib / 8]);
        let again: Vec<u8> = noise[..3000].iter().cycle().take(mib).copied().collect();
        let rows: [(&str, &[u8], bool); 7] = [
            ("noise", &noise, true),
            ("a little noise", &noise[..200 << 10], false),
            ("text", &text, false),
            ("all bytes in turn", &ramp, false),
            ("seven bits", &letters, false),
            ("an eighth of text", &mixed, false),
            ("noise that comes again", &again, false),
        ];
        for (name, bytes, dense) in rows {
            assert_eq!(is_dense(bytes), dense, "{name}");
        }
        let letters: Vec<u8> = Random(7).bytes(mib).iter().map(|byte| byte % 50).collect();
        let packed = zstd::bulk::compress(&letters, 3).unwrap();
        assert!(is_dense(&packed), "what zstd made");
    }
}
