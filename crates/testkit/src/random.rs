//! Numbers that a seed decides, for tests that try sequences: who has the seed has the run.

/// A generator: <https://prng.di.unimi.it/splitmix64.c>
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// Makes one of the seed in the variable, or else of this one. Returns the seed too, for the message of a failure.
    pub fn seeded(variable: &str, otherwise: u64) -> (Self, u64) {
        let seed = number(variable, otherwise);
        (Self(seed), seed)
    }

    /// Returns a number from 0 on, less than `most`.
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
    }

    /// Returns so many bytes, which nothing makes smaller.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..length.div_ceil(7))
            .flat_map(|_| self.below(1 << 56).to_le_bytes().into_iter().take(7))
            .collect();
        bytes.truncate(length);
        bytes
    }
}

/// Returns the number in an environment variable, or else this one.
pub fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::Random;

    /// As the C program gives them for seed 1234567.
    #[test]
    fn it_is_splitmix64() {
        let mut random = Random(1_234_567);
        let found: Vec<u64> = (0..3).map(|_| random.below(u64::MAX)).collect();
        assert_eq!(found, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }
}
