//! Decides the order of faults: a seeded stream of numbers, the same for the same seed on every
//! machine. It is never used for anything that must not be guessed.

/// A seeded stream (SplitMix64: a counter and a mixing function).
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A stream that depends on `seed` alone.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True with probability `rate` (0 never, 1 always). Takes exactly one number from the stream
    /// whatever the rate, so that changing one rate does not move the others' faults.
    pub fn happens(&mut self, rate: f64) -> bool {
        // 53 bits: every value below is an exact f64 in [0, 1).
        #[allow(clippy::cast_precision_loss)]
        let unit = (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        unit < rate
    }
}

/// A seed from a text, such as a pod's name (FNV-1a).
#[must_use]
pub fn seed_of(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..1000).map(|_| random.happens(0.3)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn rates_zero_and_one_are_exact_and_others_close() {
        let mut random = Random::new(1);
        assert!((0..10_000).all(|_| !random.happens(0.0)));
        assert!((0..10_000).all(|_| random.happens(1.0)));
        // 100,000 draws at 0.5 %: 500 expected, standard deviation 22; five of them either side.
        let hits = (0..100_000).filter(|_| random.happens(0.005)).count();
        assert!((390..=610).contains(&hits), "{hits}");
    }

    #[test]
    fn numbers_match_the_published_generator() {
        // First outputs of SplitMix64 for seed 1234567, as printed by other implementations.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
    }
}
