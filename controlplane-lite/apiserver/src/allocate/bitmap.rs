//! A set of small numbers that hands out free ones.

/// A set of small numbers.
#[derive(Debug, Clone)]
pub(super) struct Bitmap {
    words: Vec<u64>,
    first: u32,
    end: u32,
}

impl Bitmap {
    /// Numbers from `first` up to but without `end` may be taken.
    pub(super) fn new(first: u32, end: u32) -> Self {
        let words = vec![0; usize::try_from(end.div_ceil(64)).unwrap_or(0)];
        Self { words, first, end }
    }

    fn slot(n: u32) -> (usize, u64) {
        (usize::try_from(n / 64).unwrap_or(usize::MAX), 1 << (n % 64))
    }

    fn has(&self, n: u32) -> bool {
        let (word, bit) = Self::slot(n);
        self.words.get(word).is_some_and(|w| w & bit != 0)
    }

    /// Takes a number; false when it was taken or is out of range.
    pub(super) fn take(&mut self, n: u32) -> bool {
        if n < self.first || n >= self.end || self.has(n) {
            return false;
        }
        let (word, bit) = Self::slot(n);
        self.words[word] |= bit;
        true
    }

    pub(super) fn release(&mut self, n: u32) {
        let (word, bit) = Self::slot(n);
        if let Some(word) = self.words.get_mut(word) {
            *word &= !bit;
        }
    }

    /// Takes a free number, looking from a random place in the upper part (numbers from `upper` on) first, so that the
    /// lower part stays for those who ask for a number.
    pub(super) fn take_any(&mut self, upper: u32, random: &mut dyn FnMut(u32) -> u32) -> Option<u32> {
        for (from, to) in [(upper, self.end), (self.first, upper)] {
            let span = to.saturating_sub(from);
            if span == 0 {
                continue;
            }
            let start = random(span) % span;
            let found = (0..span).map(|i| from + (start + i) % span).find(|n| !self.has(*n));
            if let Some(n) = found
                && self.take(n)
            {
                return Some(n);
            }
        }
        None
    }
}
